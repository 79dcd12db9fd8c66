"""The report of `share`: what shares values, with how many bits, and what that changed."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxcomp.pipeline import PassReport
from onnxcomp.report.document import Document, Written
from onnxcomp.report.figures import bytes_text, count_text
from onnxcomp.report.parts import pass_lines, size_row, written_lines
from onnxcomp.search import Quality
from onnxcomp.target import Gates

__all__ = ["ShareReport", "TriedBits"]


@dataclass(frozen=True, slots=True)
class TriedBits:
    """One allocation of bits that was judged.

    Attributes:
        mean: Bits per weight, over all weights that may share.
        size: Of the model's file, bytes.
        quality: On the evaluation samples.
        objection: What it misses of the bounds; None: nothing.
    """

    mean: float
    size: int
    quality: Quality
    objection: str | None


@dataclass(frozen=True, slots=True)
class ShareReport(Document):
    """Everything that one `share` did and measured.

    Attributes:
        model: Where the model came from.
        settings: Of the pass, where they differ from its defaults.
        bits: Of the weights of each node, where they were chosen one by one.
        tried: The allocations that were judged, where they were.
        calibration: The samples behind what weights count; None: all count the same.
        evaluation: What answers were judged on.
        metric: What scored them; None without labels.
        gates: Bounds that were kept; where bits are chosen, with their defaults.
        missed: Which of them the result misses.
        seed: For every random choice.
        parameters: Elements of the original's weights.
        opset: Of the original.
        original_size: Bytes of the original.
        size: Bytes of the result.
        original_quality: Of the original; its score is the reference.
        quality: Of the result, loaded back from disk.
        cleanup: What each clean-up pass did.
        passes: What the sharing pass did, with what it left alone.
        recipe: TOML of the recipe that reproduces the result.
        notes: What the reader should know.
        seconds: Wall-clock time of the whole run.
        versions: Of the packages involved.
        created: UTC, ISO 8601.
        output: The file that the model was written to; None: it was not.
    """

    kind: ClassVar[str] = "share"

    model: str
    settings: Mapping[str, Any]
    bits: Mapping[str, float]
    tried: tuple[TriedBits, ...]
    calibration: str | None
    evaluation: str
    metric: str | None
    gates: Gates
    missed: tuple[str, ...]
    seed: int
    parameters: int
    opset: int
    original_size: int
    size: int
    original_quality: Quality
    quality: Quality
    cleanup: tuple[PassReport, ...]
    passes: tuple[PassReport, ...]
    recipe: str
    notes: tuple[str, ...]
    seconds: float
    versions: Mapping[str, str]
    created: str
    output: Written | None = None

    def render(self, *, verbose: bool = False) -> str:
        """Return the text for a terminal; `verbose`: also the bits of each weight, and why others were left alone."""
        lines = [*self._head(), "", *self._work(verbose=verbose), "", *self._table(), ""]
        lines += [f" note    {note}" for note in self.notes]
        lines += [f" missed  {miss}" for miss in self.missed]
        lines.append(f" result  weight sharing in {self.seconds:.0f} s")
        lines += written_lines(self.output)
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _head(self) -> Iterable[str]:
        yield (
            f" input   {self.model}  {bytes_text(self.original_size)}  {count_text(self.parameters)} parameters  "
            f"opset {self.opset}"
        )
        settings = ", ".join(f"{name} = {value}" for name, value in self.settings.items() if name != "bits_of")
        chosen = ", bits chosen per weight" if self.bits else ""
        yield f" share   {settings or 'defaults'}{chosen}"
        if self.calibration:
            yield f" calibration  {self.calibration}"
        yield f" evaluation   {self.evaluation}" + (f", {self.metric}" if self.metric else "")

    def _work(self, *, verbose: bool) -> Iterable[str]:
        made = [("cleanup", done) for done in self.cleanup] + [("share", done) for done in self.passes]
        yield from pass_lines(made, verbose=verbose)
        left = [skip for done in self.passes for skip in done.skipped]
        if left and not verbose:
            counted = ", ".join(f"{n} {reason}" for reason, n in Counter(s.reason for s in left).most_common(3))
            yield f" left alone: {len(left)} ({counted}); -v names each"
        for one in self.tried:
            verdict = one.objection or "inside the bounds"
            yield f" tried   {one.mean:.2f} bits per weight, {bytes_text(one.size)}: {verdict}"
        if verbose:
            yield from (f"         {name}: {bits:g} bits" for name, bits in self.bits.items())

    def _table(self) -> Iterable[str]:
        yield f" {'':12} {'before':>12} {'after':>12}"
        yield size_row(self.original_size, self.size)
        before, after, gates = self.original_quality, self.quality, self.gates
        if before.score is not None and after.score is not None:
            change = f"{after.score - before.score:+.4f}"
            yield f" {self.metric or 'score':12} {before.score:12.4f} {after.score:12.4f}   {change}" + _bound(
                "allowed drop", gates.max_drop
            )
        yield f" {'agreement':12} {'':12} {after.agreement:12.4f}  {_bound('bound', gates.min_agreement)}"
        yield f" {'SQNR':12} {'':12} {after.sqnr:9.1f} dB  {_bound('bound', gates.min_sqnr)}"


def _bound(word: str, bound: float | None) -> str:
    return "" if bound is None else f"  {word} {bound:g}"
