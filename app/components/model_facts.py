"""A model in one row of numbers, the same ones in the same places on every card."""

from app import numbers
from app.components.figures import figures
from db.models import Model


def model_facts(model: Model, accuracy: float | None) -> None:
    """accuracy: of its newest baseline, on the validation split."""
    facts, spec = model.facts or {}, model.spec or {}
    how = spec.get("preprocessing")
    name = spec.get("architecture") or (model.file_name or "").rpartition(".")[2].upper()
    figures(
        {
            "Architecture": name,
            "Classes": f"{spec.get('classes', 0):,}",
            "Input": f"{how['channels']} × {how['height']} × {how['width']}" if how else "–",
            "Parameters": numbers.count(facts.get("parameters")),
            "MACs": numbers.count(facts.get("macs")),
            "Size": numbers.size(facts.get("size_bytes")),
            "Accuracy": numbers.share(accuracy),
        }
    )
