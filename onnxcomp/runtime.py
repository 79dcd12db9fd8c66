"""onnxruntime, behind one door: sessions, what it can load, its optimised graph. No other module imports it."""

import ctypes
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onnxcomp.customops import libraries
from onnxcomp.errors import DataError, EnvironmentUnavailable, ModelError, UsageError

__all__ = [
    "Execution",
    "Limits",
    "Provider",
    "Session",
    "check_provider",
    "executions",
    "limits",
    "optimized_graph",
    "profile",
    "providers",
    "version",
    "why_not",
]

Provider = Literal["cpu", "cuda", "tensorrt"]

_SILENT = 4  # log severity "fatal": every failure reaches the caller as an exception anyway
_KERNEL = "_kernel_time"
# Types of outputs that onnxruntime does not turn into numpy arrays
_FOREIGN = re.compile(r"tensor\((bfloat16|float8\w*|float4\w*|u?int[24])\)")
_NUMBERS = re.compile(r"tensor\((?!string\)).*\)")
_CPU = "CPUExecutionProvider"
# In the order in which onnxruntime offers them nodes: what the first can't run goes to the next
_PROVIDERS: Mapping[Provider, tuple[str, ...]] = {
    "cpu": (_CPU,),
    "cuda": ("CUDAExecutionProvider", _CPU),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", _CPU),
}
_DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}  # whose memory holds what goes in and comes out
_NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : "  # codes
    r"|Load model from \S+ failed: *"  # a temporary file of ours
    r"|\S+\.(?:cc|h):\d+ (?:\S+ )*?[\w:~]+(?:\([^)]*\))? (?=[A-Z])"  # places in its sources
)
_HINT = "export the model again; onnx.checker.check_model may tell more"
_INPUT_ERRORS = ("INVALID_ARGUMENT", "Required inputs", "Unexpected input data type", "Invalid input name")


@dataclass(frozen=True, slots=True)
class Limits:
    """The newest opset and IR version that the installed onnxruntime loads."""

    opset: int
    ir_version: int


class Session:
    """A loaded model, ready to run.

    Args:
        model: A serialized model, or the path of one (needed where it has external data).
        threads: Intra-op threads; 0 lets onnxruntime take every core.
        optimize: Whether onnxruntime may rewrite the graph.
        spin: Whether idle threads keep their cores busy: faster where nothing else wants the cores.
        provider: What runs it. `run` has inputs and outputs in the memory of the host: one on another device copies
            them; see `bound`.

    Raises:
        EnvironmentUnavailable: The provider is not there.
        ModelError: onnxruntime refuses the model.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        threads: int = 1,
        optimize: bool = True,
        spin: bool = True,
        provider: Provider = "cpu",
    ) -> None:
        self.inference = _inference_session(model, _options(threads=threads, optimize=optimize, spin=spin), provider)
        self._provider = provider
        types = {output.name: output.type for output in self.inference.get_outputs()}
        self.outputs: tuple[str, ...] = tuple(types)
        self._foreign = {name for name, kind in types.items() if _FOREIGN.fullmatch(kind)}
        self._numbers = not self._foreign and all(_NUMBERS.fullmatch(kind) for kind in types.values())

    def run(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once and return the named outputs (default: all of the model's).

        Raises:
            DataError: The feed does not fit the model's inputs.
            ModelError: A node fails while it runs.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        foreign = any(name in self._foreign for name in names) or any(map(_is_foreign, feed.values()))
        try:
            results = self._run_foreign(feed, names) if foreign else self.inference.run(names, dict(feed))
            return dict(zip(names, results, strict=True))
        except Exception as err:  # onnxruntime's exceptions share no base class but this one
            text = _first_line(err)
            if "Non-zero status code" not in text and any(mark in str(err) for mark in _INPUT_ERRORS):
                raise DataError(f"the samples do not fit the model: {text}") from err
            raise ModelError(f"onnxruntime failed while running the model: {text}") from err

    def bound(self, feed: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """Return what runs once on a feed that is copied now, outputs staying where they are made.

        On a device with memory of its own, inputs and outputs are bound to that memory. On the CPU, and where a tensor
        is of a type that can't be bound (text, types that numpy lacks), it is `run`.

        Raises:
            ModelError: The device has no room, or a node fails while it runs.
        """
        device = _DEVICES.get(self._provider)
        if device is None or not self._numbers or any(np.asarray(a).dtype.kind not in "biuf" for a in feed.values()):
            return partial(self.run, feed)
        binding = self.inference.io_binding()
        with _failures():
            for name, array in feed.items():
                value = _onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0)
                binding.bind_ortvalue_input(name, value)
            for name in self.outputs:
                binding.bind_output(name, device, 0)

        def run() -> None:
            with _failures():
                self.inference.run_with_iobinding(binding)

        return run

    def _run_foreign(self, feed: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
        """Run with tensors of types that onnxruntime does not give to or take from numpy: bfloat16, float8, int4."""
        buffers = {name: _buffer(np.asarray(array)) for name, array in feed.items()}
        make = _onnxruntime().OrtValue.ortvalue_from_numpy_with_onnx_type
        values = {name: make(buffer, kind) for name, (buffer, kind) in buffers.items()}
        return [_array(value) for value in self.inference.run_with_ort_values(list(names), values)]


def optimized_graph(model: bytes | Path, *, int8: bool = False) -> bytes:
    """Return the model as onnxruntime runs it after its own (layout-independent) graph optimisations.

    With ``int8``, activations of that type are fused as well, as onnxruntime does on ARM and on x86 does not.

    Raises:
        ModelError: onnxruntime refuses the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "optimized.onnx")
        options = _options(threads=1, optimize=True)
        options.graph_optimization_level = _onnxruntime().GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.qdqisint8allowed", str(int(int8)))
        _inference_session(model, options)
        return target.read_bytes()


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a node: the shapes of the tensors that went in and came out.

    Weights that onnxruntime has packed away for its kernel, and all that is no tensor, are missing from both.
    """

    node: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]


def executions(model: bytes | Path, feed: Mapping[str, np.ndarray]) -> list[Execution]:
    """Run once as the graph is written, and return every execution of a node in order: bodies of loops repeat.

    Raises:
        ModelError: onnxruntime refuses the model, or it fails while it runs.
    """
    return [
        Execution(
            event["name"].removesuffix(_KERNEL),
            _shapes(event["args"]["input_type_shape"]),
            _shapes(event["args"]["output_type_shape"]),
        )
        for event in profile(model, feed, threads=0, runs=1, optimize=False)
    ]


def _shapes(typed: list[dict[str, list[int]]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(shape) for entry in typed for shape in entry.values())


def profile(
    model: bytes | Path,
    feed: Mapping[str, np.ndarray],
    *,
    threads: int,
    runs: int,
    provider: Provider = "cpu",
    optimize: bool = True,
) -> list[dict[str, Any]]:
    """Run a model and return onnxruntime's events of its nodes' kernels, one for each call.

    Raises:
        EnvironmentUnavailable: The provider is not there.
        ModelError: onnxruntime refuses the model, or it fails while it runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = _options(threads=threads, optimize=optimize)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = _inference_session(model, options, provider)
        with _failures():
            for _ in range(runs):
                session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]


def providers() -> dict[str, str]:
    """Try every execution provider of the installed onnxruntime on a small model.

    Returns:
        By onnxruntime's name, why it does not work; an empty text: it does.
    """
    ort = _onnxruntime()
    found = {}
    for name in ort.get_available_providers():
        try:
            session = ort.InferenceSession(_probe(opset=13, ir_version=8), _options(threads=1, optimize=True), [name])
            taken = name in session.get_providers()  # onnxruntime falls back to the CPU in silence
            session.run(None, {"x": np.zeros(1, np.float32)})
            found[name] = "" if taken else "it does not start: a library of it is missing, or there is no device"
        except Exception as err:  # onnxruntime's exceptions share no base class but this one
            found[name] = _first_line(err)
    return found


def check_provider(provider: Provider) -> None:
    """Refuse a provider that the installed onnxruntime does not have.

    Raises:
        EnvironmentUnavailable: It is not there.
    """
    wanted = _PROVIDERS[provider][0]
    if wanted not in (available := _onnxruntime().get_available_providers()):
        raise EnvironmentUnavailable(
            f"the installed onnxruntime has no {wanted}, only {', '.join(available)}",
            hint="in an environment of its own, on a machine with an NVIDIA GPU: pip install onnxruntime-gpu",
        )


def why_not(provider: Provider) -> str | None:
    """Say why a provider does not start on this machine, or None."""
    try:
        _inference_session(_probe(opset=13, ir_version=8), _options(threads=1, optimize=True), provider)
    except (EnvironmentUnavailable, ModelError) as err:
        return str(err)
    return None


@cache
def limits() -> Limits:
    """Find by trial the newest opset and IR version that onnxruntime loads (their tables lag behind onnx's)."""
    import onnx

    opset = next(v for v in range(onnx.defs.onnx_opset_version(), 0, -1) if _loads(opset=v, ir_version=8))
    ir_version = next(v for v in range(int(onnx.IR_VERSION), 0, -1) if _loads(opset=13, ir_version=v))
    return Limits(opset, ir_version)


@cache
def version() -> str:
    """Return the version of the installed onnxruntime."""
    return str(_onnxruntime().__version__)


def _is_foreign(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.isbuiltin == 2  # a type of ml_dtypes


def _buffer(array: np.ndarray) -> tuple[np.ndarray, int]:
    """Return an array's bytes in the shape that they stand for, and ONNX's number of the data type.

    The elements of a buffer of 4-bit values are bytes, of which the last half is not used.
    """
    from onnx import numpy_helper

    if not _is_foreign(array):
        return array, int(numpy_helper.from_array(array.reshape(-1)[:0]).data_type)
    tensor = numpy_helper.from_array(array)
    buffer = np.zeros(array.shape, f"u{array.itemsize}")
    packed = np.frombuffer(tensor.raw_data, np.uint8)
    buffer.reshape(-1).view(np.uint8)[: packed.size] = packed
    return buffer, int(tensor.data_type)


def _array(value: Any) -> np.ndarray:
    """Copy what an ``OrtValue`` of any tensor type holds."""
    from onnx import TensorProto, numpy_helper

    if value.data_type() == "tensor(string)":
        return np.asarray(value.numpy())
    content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes()) if 0 not in value.shape() else b""
    return numpy_helper.to_array(TensorProto(data_type=value.element_type(), dims=value.shape(), raw_data=content))


def _loads(*, opset: int, ir_version: int) -> bool:
    try:
        _inference_session(_probe(opset=opset, ir_version=ir_version), _options(threads=1, optimize=False))
    except ModelError:
        return False
    return True


def _probe(*, opset: int, ir_version: int) -> bytes:
    """Return the smallest model: y = x."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return bytes(model.SerializeToString())


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except Exception as err:  # onnxruntime's exceptions share no base class but this one
        raise ModelError(f"onnxruntime failed while running the model: {_first_line(err)}") from err


def _inference_session(model: bytes | Path, options: Any, provider: Provider = "cpu") -> Any:
    source = model if isinstance(model, bytes) else str(model)
    ort = _onnxruntime()
    if provider != "cpu":
        check_provider(provider)
    try:
        with redirect_stdout(sys.stderr) if provider != "cpu" else nullcontext():  # it prints what does not start
            if provider != "cpu":
                ort.preload_dlls()  # of the nvidia packages that pip installed, where there are any
            session = ort.InferenceSession(source, options, providers=list(_PROVIDERS[provider]))
    except Exception as err:  # onnxruntime's exceptions share no base class but this one
        raise ModelError(f"onnxruntime refuses the model: {_first_line(err)}", hint=_HINT) from err
    if (wanted := _PROVIDERS[provider][0]) not in session.get_providers():  # it falls back to others in silence
        raise EnvironmentUnavailable(
            f"onnxruntime could not start its {wanted} on this machine",
            hint="nvidia-smi tells whether there is a GPU; CUDA and cuDNN (and TensorRT) must be of the versions that "
            "this onnxruntime is built for",
        )
    session.disable_fallback()  # else a run that fails there is made again on others, in silence
    return session


def _options(*, threads: int, optimize: bool, spin: bool = True) -> Any:
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for library in libraries():
        try:
            options.register_custom_ops_library(library)
        except Exception as err:
            raise UsageError(f"{library} is no library of custom operators: {_first_line(err)}") from err
    return options


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as err:
        hint = "pip install onnxruntime (or onnxruntime-gpu)"
        raise EnvironmentUnavailable("onnxruntime is not installed", hint=hint) from err
    return onnxruntime


def _first_line(err: Exception) -> str:
    """Return what onnxruntime says, without its codes and the places in its sources."""
    line = re.split(r"\n(?! index)", str(err).strip(), maxsplit=1)[0]  # with the sizes in lines of their own
    return _NOISE.sub("", " ".join(line.split()))[:400] or type(err).__name__
