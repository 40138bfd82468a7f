"""The fence round torch, transformers and peft.

Only the rooms in here import transformers and peft, and name what a library calls private, does not
document, or calls by another name in another version. What is leaned on so has a record
(`leaning.Leaning`): what it is for, in which versions it was seen to work, and what a user is told
where it is missing. Nothing in here ends a load for that: a room raises `leaning.Missing`, or
answers as if the feature were not there, and the engine goes the longer way.

tests/arch/test_fence.py keeps others out, and tests/backends/huggingface/engine/test_without.py
takes each leaning away and has a model answer all the same.
"""
