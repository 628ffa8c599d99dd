"""The table below the chart: the same points in numbers, the chosen ones first."""

from collections.abc import Callable, Sequence

import pandas as pd
import streamlit as st

COLUMNS = {
    "label": st.column_config.TextColumn("Variant", width=185),
    "family": st.column_config.TextColumn("Family"),
    "accuracy_percent": st.column_config.NumberColumn(
        "Accuracy %", format="%.2f", help="On the validation split."
    ),
    "points": st.column_config.NumberColumn("Points", format="%.2f", help="Accuracy against the baseline."),
    "ratio": st.column_config.NumberColumn("Latency", format="%.3f", help="Relative to the baseline."),
    "latency_ms": st.column_config.NumberColumn(
        "ms", format="%.3f", help="Median of single calls; with exits the mean, which tells more there."
    ),
    "size_mib": st.column_config.NumberColumn("Size MiB", format="%.2f"),
    "front": st.column_config.CheckboxColumn("Front", help="On the Pareto front."),
    "feasible": st.column_config.CheckboxColumn("In goal"),
    "marks": st.column_config.TextColumn("Marks"),
}


def variants_table(
    frame: pd.DataFrame, selected: Sequence[str], *, on_choose: Callable[[str | None, str | None], None]
) -> None:
    """Ticking one or two rows chooses them, as a click in the chart does."""
    table = _ordered(frame, selected)
    # Another selection is another table: only a new one takes a default selection.
    key = f"table-{'-'.join(selected)}"
    columns = [name for name in COLUMNS if name != "marks" or table["marks"].any()]
    shown = table.reset_index(drop=True)[columns]

    def choose() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        # The newly ticked one replaces the second; a third row has no place.
        picked = [table["variant"].iloc[row] for row in (*rows[:1], *rows[-1:])]
        on_choose(picked[0] if picked else None, picked[1] if len(picked) > 1 else None)

    st.dataframe(
        shown,
        column_config=COLUMNS,
        hide_index=True,
        key=key,
        on_select=choose,
        selection_mode="multi-row",
        selection_default={"selection": {"rows": list(range(min(len(selected), len(table))))}},
        alt="Every variant with its accuracy, latency and size.",
    )
    st.download_button(
        "CSV", lambda: table.drop(columns=["accuracy_percent", "size_mib"]).to_csv(index=False),
        file_name="variants.csv", mime="text/csv", icon=":material/download:", on_click="ignore",
    )  # fmt: skip


def _ordered(frame: pd.DataFrame, selected: Sequence[str]) -> pd.DataFrame:
    """The selected ones, then the baseline, the front, and the rest by latency."""
    place = frame["variant"].map({name: i for i, name in enumerate(selected)}).fillna(len(selected))
    baseline = frame.loc[frame["baseline"], "accuracy"]
    table = frame.assign(
        place=place,
        accuracy_percent=100 * frame["accuracy"],
        points=100 * (frame["accuracy"] - (baseline.iloc[0] if len(baseline) else float("nan"))),
        size_mib=frame["size_bytes"] / 2**20,
        marks=frame["marks"].fillna("[]").str.strip("[]").str.replace('"', ""),
    )
    return table.sort_values(
        ["place", "baseline", "front", "ratio"], ascending=[True, False, False, True]
    ).drop(columns="place")
