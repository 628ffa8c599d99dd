"""The drop zone for models, with the settings that a file of weights needs."""

from functools import cache
from typing import Any

import streamlit as st

from app.components.drop_zone import drop_zone
from workers.graph.architectures import architecture_names

ACCEPT = ".pt,.pth,.safetensors,.pt2,.onnx"
TITLE = "Drop a model here"
DETAIL = "Weights (.pt, .pth, .safetensors) with their architecture, a whole .pt2, or an .onnx."
WHY_NOT = """
A pickle of a whole module (`torch.save(model, …)`) runs any code it holds as soon as it is opened, so it is
refused, and so is TorchScript. In the program that made it, save one of these instead:
"""
CONVERT = """
torch.save(model.state_dict(), "weights.pt")  # and choose the architecture here

batch = torch.export.Dim("N")  # or the whole model, whatever its architecture
program = torch.export.export(model.eval(), (example,), dynamic_shapes=({0: batch},))
torch.export.save(program, "model.pt2")
""".strip()


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(architecture_names()))


def upload_model() -> str | None:
    """The id of a model that was just uploaded, once."""
    settings = reading_settings("new")
    uploaded = drop_zone("model", title=TITLE, detail=DETAIL, accept=ACCEPT, settings=settings)
    with st.expander("Why whole pickles are refused, and how to convert one"):
        st.markdown(WHY_NOT)
        st.code(CONVERT, language="python")
    return uploaded


def reading_settings(key: str) -> dict[str, Any]:
    """Architecture and preprocessing; what is left empty is read from the file or its architecture."""
    first, second, third, fourth = st.columns([4, 2, 3, 3])
    architecture = first.selectbox(
        "Architecture (weights only)", _names(), index=None, placeholder="Not needed for .pt2 and .onnx",
        accept_new_options=True, key=f"architecture-{key}",
    )  # fmt: skip
    size = second.number_input(
        "Input (px)", 8, 4096, None, key=f"size-{key}", placeholder="Usual",
        help="Side of the square pictures that the model takes.",
    )  # fmt: skip
    mean = third.text_input("Mean", key=f"mean-{key}", placeholder="Usual, or .49, .48, .45", help=_NORMAL)
    std = fourth.text_input("Std", key=f"std-{key}", placeholder="Usual, or .25, .24, .26", help=_NORMAL)
    numbers = {name: _numbers(name, text) for name, text in (("mean", mean), ("std", std))}
    return {"architecture": architecture, "size": size, **numbers}


_NORMAL = "One number per channel, of pixels scaled to 0–1, as in training."


def _numbers(name: str, text: str) -> list[float] | None:
    """None for nothing; an empty list, which nobody accepts, for what is not a list of numbers."""
    try:
        return [float(part) for part in text.split(",")] if text.strip() else None
    except ValueError:
        st.error(f"{name}: “{text}” is not a list of numbers. Write one per channel, as in .49, .48, .45.")
        return []
