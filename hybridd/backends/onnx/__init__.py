"""ONNX directories (onnxruntime-genai's and optimum's): recognised, not yet served."""

from __future__ import annotations

from ..api import Backend, Switch
from .estimate import estimate
from .inspect import FORMAT, claims, inspect


class ONNXBackend(Backend):
    """The daemon's half of the format; there is no worker's half yet."""

    name = FORMAT
    engine = "onnxruntime"
    engine_factory = ""
    switch = Switch("List ONNX models; there is no engine for them yet.")
    claims = staticmethod(claims)
    inspect = staticmethod(inspect)
    estimate = staticmethod(estimate)


BACKEND: Backend = ONNXBackend()
