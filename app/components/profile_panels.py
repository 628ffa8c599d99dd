"""The layers of one file, and of two beside each other: pictures, tables, and the roofs of the machine."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app import numbers
from app.charts.profile import Colour, layer_bars, roofline
from app.components.plain import plain
from app.profiles import bytes_speed, compared, layers_frame, speed
from workers.profiling.profile import Profile

#: More layers than that are not drawn: those of which the times are lowest.
MOST_BARS = 60
PERCENT = ("share", "of_roof", "reached")


def one_picture(profile: Profile, colour: Colour) -> None:
    frame = layers_frame(profile)
    kept = frame[frame["ms"].rank(ascending=False, method="first") <= MOST_BARS]
    chart = layer_bars(_hovered(kept), colour, longest_ms=_longest(kept["ms"]), most_macs=_most(kept["macs"]))
    st.altair_chart(chart, key="bars", alt="A bar per layer; the tab Layers lists the same.")
    if len(kept) < len(frame):
        st.caption(f"The {len(kept)} longest of {len(frame)} are drawn; the table has all.")


def two_pictures(before: tuple[str, Profile], after: tuple[str, Profile], colour: Colour) -> None:
    """The same rows in both, on the same scale."""
    both = compared(before[1], after[1])
    most = both[["ms_before", "ms_after"]].max(axis=1)
    kept = both[most.rank(ascending=False, method="first") <= MOST_BARS]
    for column, label, side in zip(
        st.columns([3, 2]), (before[0], after[0]), ("before", "after"), strict=True
    ):
        part = kept[["name"]].assign(**{what: kept[f"{what}_{side}"] for what in ("ms", "macs", "precision")})
        chart = layer_bars(
            _hovered(part.fillna({"ms": 0.0})),
            colour,
            longest_ms=_longest(most),
            most_macs=_most(kept[["macs_before", "macs_after"]].max(axis=1)),
            named=side == "before",
        )
        with column:
            st.markdown(f"**{side.capitalize()}**: {plain(label)}")
            st.altair_chart(chart, key=f"bars-{side}", alt="A bar per layer; the tables list the same.")


def _longest(ms: "pd.Series[float]") -> float:
    return 1.03 * float(ms.max())


def _most(macs: "pd.Series[float]") -> float:
    return max(1.0, float(macs.fillna(0).max()))


def _hovered(frame: pd.DataFrame) -> pd.DataFrame:
    """With a column `hover` that says the rest."""
    told = []
    for row in frame[["name", "ms", "macs", "precision"]].to_dict("records"):
        parts = [f"{row['name']}: {numbers.milliseconds(row['ms'])}"]
        parts += [f"{numbers.count(row['macs'])} MACs"] if row["macs"] > 0 else []
        parts += [row["precision"]] if isinstance(row["precision"], str) and row["precision"] else []
        told.append(" · ".join(parts))
    return frame.assign(hover=told)


def layers_table(profile: Profile) -> None:
    frame = layers_frame(profile).sort_values("ms", ascending=False)
    frame[list(PERCENT)] *= 100
    shown = {
        "name": st.column_config.TextColumn("Layer", pinned=True),
        "kind": st.column_config.TextColumn("Kind"),
        "ms": st.column_config.NumberColumn("ms", format="%.4f"),
        "spread": st.column_config.NumberColumn("±", format="%.4f", help="Half of the 95 % interval."),
        "share": st.column_config.ProgressColumn("Share", format="%.1f %%", min_value=0, max_value=100),
        "precision": st.column_config.TextColumn("Precision"),
        "macs": st.column_config.NumberColumn("MACs", format="compact", help="Mean per sample."),
        "gflops": st.column_config.NumberColumn(
            "GFLOP/s", format="%.2f", help="Two operations a MAC; of int8 layers they are integer operations."
        ),
        "of_roof": st.column_config.NumberColumn(
            "Of roof", format="%.0f %%",
            help="How near it comes to the least time that this machine's peak and bandwidth allow.",
        ),
    }  # fmt: skip
    if (frame["reached"] < 100).any():
        shown["reached"] = st.column_config.NumberColumn(
            "Reached", format="%.0f %%", help="Share of the samples that get there; times are means over all."
        )
    st.dataframe(frame[list(shown)], column_config=shown, hide_index=True, placeholder="–", height=460)


def comparison_table(before: Profile, after: Profile) -> None:
    both = compared(before, after)
    told = [
        "–" if pd.isna(b) or pd.isna(a) or min(a, b) <= 0 else numbers.faster(a / b)
        for b, a in zip(both["ms_before"], both["ms_after"], strict=True)
    ]
    frame = both.assign(change=told)
    shown = {
        "name": st.column_config.TextColumn("Layer", pinned=True),
        "ms_before": st.column_config.NumberColumn("Before (ms)", format="%.4f"),
        "ms_after": st.column_config.NumberColumn("After (ms)", format="%.4f"),
        "change": st.column_config.TextColumn("Change"),
        "macs_before": st.column_config.NumberColumn("MACs before", format="compact"),
        "macs_after": st.column_config.NumberColumn("MACs after", format="compact"),
        "precision_before": st.column_config.TextColumn("Precision before"),
        "precision_after": st.column_config.TextColumn("Precision after"),
    }
    st.dataframe(frame[list(shown)], column_config=shown, hide_index=True, placeholder="–", height=460)
    ratio = after.latency_ms / before.latency_ms
    st.caption(
        f"Whole call: {numbers.milliseconds(before.latency_ms)} before, "
        f"{numbers.milliseconds(after.latency_ms)} after, {numbers.faster(ratio)}. Layers are matched by "
        "name; one that was split counts as the one it was made from."
    )


def roofline_points(files: Sequence[tuple[str, Profile]]) -> pd.DataFrame:
    """The layers that multiply, of all files."""
    parts = []
    for label, profile in files:
        frame = layers_frame(profile).dropna(subset=["gflops", "intensity"])
        hover = [
            f"{row['name']}: {speed(row['gflops'], row['precision'])}, "
            f"{numbers.share(row['of_roof'], 0)} of its roof, {numbers.milliseconds(row['ms'])}"
            for row in frame.to_dict("records")
        ]
        parts.append(frame.assign(file=label, hover=hover))
    return pd.concat(parts)


def roofline_panel(files: Sequence[tuple[str, Profile]]) -> None:
    frame = roofline_points(files)
    if frame.empty:
        st.caption("No layer of this file multiplies.")
        return
    peaks = files[-1][1].peaks
    st.altair_chart(
        roofline(frame, peaks),
        key="roofline",
        alt="Layers under the roofs of the machine; listed in the tables.",
    )
    memory, cache = peaks.gbytes[-1][1], max(moved for _, moved in peaks.gbytes)
    told = {precision: speed(peak, precision) for precision, peak in peaks.gflops.items()}
    st.caption(
        f"Peaks measured on this machine, one thread: {told['float32']} in float32, {told['int8']} in int8 "
        f"(a large matrix product in the same runtime), {bytes_speed(memory)} from memory and "
        f"{bytes_speed(cache)} from caches (a copy). Points are as large as the time they take; layers that "
        "do not multiply are left out."
    )
