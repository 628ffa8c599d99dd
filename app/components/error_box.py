"""An error that a person can act on: where, what, what to do."""

import re
import textwrap
from collections.abc import Mapping

import streamlit as st

#: Advice ends in code when a colon is followed by something that is called or run.
_CODE = re.compile(r":\s+((?:torch|import|from|pip|python|paredown|onnx)\b.*)$", re.DOTALL)


def error_box(error: Mapping[str, str]) -> None:
    """error: {"where", "what", "fix"}. What comes from a user's file is shown as text, never as Markdown."""
    with st.container(border=True):
        st.markdown(":material/error: :red[**This did not work**]")
        st.text(f"{error.get('where', '')}: {error.get('what', '')}".removeprefix(": "))
        advice, code = split_code(error.get("fix", ""))
        if advice:
            st.text(advice)
        if code:
            st.code(code, language="python", wrap_lines=True)


def split_code(fix: str) -> tuple[str, str]:
    """(sentence, lines to copy); either may be empty."""
    sentence, separator, lines = fix.partition("\n")
    if separator:
        return sentence.strip(), textwrap.dedent(lines).strip()
    found = _CODE.search(fix)
    if not found:
        return fix.strip(), ""
    return fix[: found.start() + 1].strip(), found.group(1).rstrip(". ")
