"""Which models there are: walking and watching disks, stores, inspections, names."""
