"""Running a model piece by piece over the same samples, while its later weights still change.

Who refits layers in forward order must know what each reads once those before it are refitted. Running the whole model
again for every layer would take time that grows with the square of the depth. A relay runs each node once: what a
piece leaves for later pieces is kept for every run, and the next piece starts from there.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.data import Feed
from onnxcomp.errors import ModelError
from onnxcomp.model import infer_shapes, open_session

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Relay", "reads"]

MOST_BYTES = 1 << 28  # of kept activations that stay in memory; the others go to files


class Relay:
    """A model that runs over some samples one piece after the other; a context, which removes its files at the end.

    What is kept are the tensors that nodes which have not run yet read, of every run: up to a bound in memory, beyond
    it in files of a temporary folder. Memory does not grow with the number of samples.

    Args:
        model: Its graph must not change, but constants of nodes that have not run yet may.
        feeds: The runs.
        wanted: Every tensor that will be asked for; what none of them needs is never run.
        threads: Intra-op threads; 0 is all cores.
        most_bytes: Of kept tensors that stay in memory.

    Raises:
        KeyError: The graph has no tensor of such a name.
    """

    def __init__(
        self,
        model: "ir.Model",
        feeds: Iterable[Feed],
        wanted: Iterable[str],
        *,
        threads: int = 0,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._model = model
        self._threads = threads
        self._made = {str(value.name): node for node in model.graph for value in node.outputs}
        self._reads = {node: reads(node) for node in model.graph}
        self._wanted = set(wanted)
        self._given = {str(value.name) for value in model.graph.inputs}
        for name in self._wanted - self._given:
            _ = self._made[name]
        self._left = self._before(self._wanted, set())  # nodes that are still to run
        self._done: set[ir.Node] = set()
        self._folder = tempfile.TemporaryDirectory(prefix="onnxcomp-")
        self._most = most_bytes
        self._used = 0
        self._files = 0
        self._runs: list[dict[str, Any]] = []
        for feed in feeds:
            self._runs.append({})
            for name, array in feed.items():
                self._keep(len(self._runs) - 1, name, np.asarray(array))

    def __enter__(self) -> "Relay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    @property
    def length(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def ahead(self, names: Iterable[str]) -> Iterator[dict[str, np.ndarray]]:
        """Run the nodes that these tensors need and that have not run; yield the tensors, run by run.

        Raises:
            ModelError: The piece does not run, or a tensor between pieces is no array.
        """
        named = list(dict.fromkeys(names))
        nodes = self._before(named, self._done)
        later = self._left - nodes
        made = {str(value.name) for node in nodes for value in node.outputs if value.name}
        needed = {name for node in later for name in self._reads[node]} | self._wanted
        outputs = sorted(made & (needed | set(named)))
        known = set(self._runs[0]) if self._runs else set()
        inputs = sorted({name for node in nodes for name in self._reads[node]} & known)
        session = self._session(inputs, outputs) if nodes and self._runs else None
        for index in range(len(self._runs)):
            found: dict[str, Any] = {}
            if session is not None:
                found = session.run({name: self._get(index, name) for name in inputs}, outputs)
            for name, value in found.items():
                if not isinstance(value, np.ndarray):
                    raise ModelError(f"{name} is no tensor: it can't be handed from piece to piece")
            yield {name: found[name] if name in found else self._get(index, name) for name in named}
            for name in outputs:
                if name in needed:
                    self._keep(index, name, found[name])
            for name in set(self._runs[index]) - needed:
                self._drop(index, name)
        self._done |= nodes
        self._left = later

    def get(self, index: int, name: str) -> np.ndarray:
        """Return a wanted tensor of a run that is behind: an input of the model, or one that was run to.

        Raises:
            KeyError: It is not kept.
        """
        return self._get(index, name)

    def finished(self, names: Iterable[str]) -> None:
        """Forget tensors that will not be asked for any more."""
        self._wanted -= set(names)

    def _before(self, names: Iterable[str], without: "set[ir.Node]") -> "set[ir.Node]":
        """Return the nodes that tensors need, without some and what only these need."""
        found: set[ir.Node] = set()
        todo = [self._made[name] for name in names if name in self._made]
        while todo:
            node = todo.pop()
            if node not in found and node not in without:
                found.add(node)
                todo += [self._made[name] for name in self._reads[node] if name in self._made]
        return found

    def _session(self, inputs: list[str], outputs: list[str]) -> Any:
        """Open a session of the nodes between tensors."""
        import onnx_ir as ir

        graph = ir.convenience.extract(self._model.graph, inputs, outputs)
        for value in graph.inputs:
            array = self._get(0, str(value.name))
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            value.shape = None
        for node in graph:
            for value in node.outputs:
                value.shape = None
        piece = ir.Model(graph, ir_version=self._model.ir_version, functions=list(self._model.functions.values()))
        piece.graph.opset_imports.update(self._model.opset_imports)
        if any(value.type is None for value in graph.outputs):
            infer_shapes(piece)
        return open_session(piece, threads=self._threads, spin=False)

    def _keep(self, index: int, name: str, array: np.ndarray) -> None:
        if self._used + array.nbytes <= self._most or array.dtype == object:
            self._runs[index][name] = array
            self._used += array.nbytes
            return
        self._files += 1
        path = Path(self._folder.name, f"{self._files}.npy")
        np.save(path, array)
        self._runs[index][name] = path

    def _get(self, index: int, name: str) -> np.ndarray:
        kept = self._runs[index][name]
        array: np.ndarray = np.load(kept) if isinstance(kept, Path) else kept
        return array

    def _drop(self, index: int, name: str) -> None:
        kept = self._runs[index].pop(name)
        if isinstance(kept, Path):
            kept.unlink()
        else:
            self._used -= kept.nbytes


def reads(node: "ir.Node") -> set[str]:
    """Name the tensors that a node reads, in the bodies that it holds too."""
    import onnx_ir as ir

    found = {str(value.name) for value in node.inputs if value is not None}
    for attribute in node.attributes.values():
        graphs = (
            [attribute.as_graph()]
            if attribute.type is ir.AttributeType.GRAPH
            else attribute.as_graphs()
            if attribute.type is ir.AttributeType.GRAPHS
            else []
        )
        for body in graphs:
            inside = {str(value.name) for value in (*body.inputs, *body.initializers.values())}
            inside |= {str(value.name) for inner in body for value in inner.outputs}
            found |= {name for inner in body for name in reads(inner)} - inside
            found |= {str(value.name) for value in body.outputs} - inside
    return found
