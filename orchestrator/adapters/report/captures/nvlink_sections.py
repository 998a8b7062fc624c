"""What went over NVLink, as sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orchestrator.adapters.report.captures.shown import (
    Shown,
    charts_of_nodes,
    each_gpu,
    gpus_in,
    table_section,
    text_section,
)
from orchestrator.core.captures.nvlink import (
    UNEVEN,
    Comparison,
    LinkFigures,
    compare_payload,
    link_figures,
    unevenness,
)
from orchestrator.core.captures.points import Points, rates
from orchestrator.core.captures.recorded import NodeRecord
from orchestrator.core.model.facts import NvLink
from orchestrator.parsing.replies import report_sections as given

WHOLE = -1  # in the place of a link: all of the GPU
KIB, GB, GIB = 1024.0, 1e9, float(1 << 30)
NOTE = "Payload by NVML's data counters: headers and acknowledgements are not in it."
UNKNOWN = "unknown"
SENT = given.Axis(label="NVLink sent", unit="GB/s", from_zero=True)
FORMULA = (
    "2(n-1)/n of the bytes of an all-reduce, (n-1)/n of those of an all-gather, a reduce-scatter "
    "or an all-to-all; what else went over the links is in what was measured. A switch that "
    "reduces (NVLS) sends less."
)
NOTHING_REPORTED = (
    "not compared with a formula: the job reported no collective (orchestrate_kit.collective)"
)
LINK_HEADINGS = ("GPU and link", "sent", "received", "highest sent")
HEADINGS = ("GPU", "sent", "received", "sent on average", "highest", "busiest link over mean")


def show_nvlink(records: Sequence[NodeRecord]) -> Shown:
    """Of all GPUs of the run."""
    found = {
        record.node: [_links_of(record, gpu) for gpu in gpus_in(record, "nvlink")]
        for record in records
    }
    compared = {
        record.node: compare_payload(found[record.node], record.collectives) for record in records
    }
    every = [figures for of_node in found.values() for figures in of_node]
    totals = _figures(every, compared)
    return Shown(
        sections=[
            table_section(
                "NVLink: topology", ("GPU", "links", "lead to", "each"), _wiring(records)
            ),
            table_section("NVLink: payload", HEADINGS, _gpu_rows(found), NOTE),
            *_comparisons(compared),
            *charts_of_nodes(records, "nvlink", SENT, _sending),
            table_section("NVLink: each link", LINK_HEADINGS, _link_rows(found)),
        ],
        line=_line(every, totals),
        figures=totals,
    )


def _links_of(record: NodeRecord, gpu: int) -> LinkFigures:
    samples = record.samples["nvlink"]
    counted = {
        key[1]: (samples.points(key, "sent_kib", KIB), samples.points(key, "received_kib", KIB))
        for key in samples.rows
        if key[0] == gpu
    }
    return link_figures(gpu, {WHOLE: ((), ()), **counted}, WHOLE)


def _wiring(records: Sequence[NodeRecord]) -> Iterator[Sequence[str]]:
    for record, gpu in each_gpu(records, "nvlink"):
        yield f"{record.node} GPU {gpu}", *_wires(record.gpu(gpu).nvlink)


def _wires(known: NvLink) -> tuple[str, str, str]:
    links = UNKNOWN if known.active is None else f"{known.active} of {known.total or UNKNOWN} up"
    peers = ", ".join(f"{peer} x{count}" for peer, count in known.peers.items())
    rate = UNKNOWN if known.mbyte_s is None else f"{known.mbyte_s / 1000:g} GB/s of signal"
    return links, peers or UNKNOWN, rate


def _gpu_rows(found: Mapping[str, Sequence[LinkFigures]]) -> Iterator[Sequence[str]]:
    for node, of_node in found.items():
        for one in of_node:
            uneven = one.imbalance
            yield (
                f"{node} GPU {one.gpu}",
                _gib(one.sent.bytes),
                _gib(one.received.bytes),
                _rate(one.sent.bytes, one.seconds),
                f"{one.sent.peak / GB:.3g} GB/s",
                "" if uneven is None else f"{uneven:.3f}",
            )


def _gib(amount: float | None) -> str:
    return UNKNOWN if amount is None else f"{amount / GIB:.4g} GiB"


def _rate(amount: float | None, seconds: float) -> str:
    return UNKNOWN if amount is None or seconds <= 0 else f"{amount / seconds / GB:.3g} GB/s"


def _link_rows(found: Mapping[str, Sequence[LinkFigures]]) -> Iterator[Sequence[str]]:
    for node, of_node in found.items():
        for one in of_node:
            for link, (sent, received) in sorted(one.links.items()):
                highest = f"{sent.peak / GB:.3g} GB/s"
                name = f"{node} GPU {one.gpu} link {link}"
                yield name, _gib(sent.bytes), _gib(received.bytes), highest


def _sending(record: NodeRecord, gpu: int) -> Points:
    """GB/s of a GPU over time."""
    sent = record.samples["nvlink"].points((gpu, WHOLE), "sent_kib", KIB)
    return [(t, rate / GB) for t, rate in rates(sent)]


def _comparisons(compared: Mapping[str, Comparison | None]) -> Iterator[given.Section]:
    known = {node: one for node, one in compared.items() if one is not None}
    rows = (
        (node, _gib(one.predicted), _gib(one.measured), one.why_not or f"{one.ratio:.4f}")
        for node, one in known.items()
    )
    if known:
        headings = ("node", "by the formula, per GPU", "measured, mean of GPUs", "ratio")
        yield table_section("NVLink: collectives that were reported", headings, rows, FORMULA)
    else:
        yield text_section("NVLink: collectives", NOTHING_REPORTED, "soft")


def _line(every: Sequence[LinkFigures], totals: Mapping[str, float]) -> str:
    known = _sent(every)
    parts = [f"{len(every)} GPUs"]
    if known:
        highest = f"highest {totals['peak_gb_per_s']:.3g} GB/s of a GPU"
        parts.append(f"{_gib(sum(known))} sent, {highest}")
    if "formula_ratio_min" in totals:
        least, most = totals["formula_ratio_min"], totals["formula_ratio_max"]
        parts.append(f"{least:.3f} to {most:.3f} of what its collectives need")
    uneven = totals.get("imbalance", 0.0)
    if uneven > UNEVEN:
        parts.append(f"uneven: the busiest GPU sent {uneven:.2f} times the mean")
    return ", ".join(parts)


def _sent(every: Sequence[LinkFigures]) -> list[float]:
    return [one.sent.bytes for one in every if one.sent.bytes is not None]


def _figures(
    every: Sequence[LinkFigures], compared: Mapping[str, Comparison | None]
) -> dict[str, float]:
    known = _sent(every)
    highest = max((one.sent.peak for one in every), default=0.0)
    figures: dict[str, float] = {"gpus": len(every), "peak_gb_per_s": highest / GB}
    if known and len(known) == len(every):
        figures["sent_bytes"] = sum(known)
    uneven = unevenness(known)
    if uneven is not None:
        figures["imbalance"] = uneven
    links = [one.imbalance for one in every if one.imbalance is not None]
    if links:
        figures["link_imbalance"] = max(links)
    ratios = [one.ratio for one in compared.values() if one is not None and one.ratio is not None]
    if ratios:
        figures["formula_ratio_min"], figures["formula_ratio_max"] = min(ratios), max(ratios)
    return figures
