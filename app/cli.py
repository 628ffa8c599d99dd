"""`paredown`: the product without a browser."""

import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated

import typer

from app import terminal
from workers.errors import ParedownError, RecipeRefused

app = typer.Typer(
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    help="Makes trained PyTorch models small and fast.",
)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, YAML or JSON.")],
    model: Annotated[Path, typer.Option(help="Weights (.pt, .pth, .safetensors), .pt2 or .onnx.")],
    dataset: Annotated[str, typer.Option(help="Folder, .zip, .npz, sample, FashionMNIST or CIFAR10.")],
    out: Annotated[Path, typer.Option(help="Folder for the exported file and the report.")],
    arch: Annotated[str | None, typer.Option(help="Architecture of a file of weights.")] = None,
    size: Annotated[int | None, typer.Option(min=8, max=4096, help="Side of the input pictures.")] = None,
    mean: Annotated[str | None, typer.Option(help="Per channel, e.g. .49,.48,.45; of pixels 0-1.")] = None,
    std: Annotated[str | None, typer.Option(help="Per channel, e.g. .25,.24,.26.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of splits, shuffling and training.")] = 0,
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,  # noqa: ARG001 - read by main
) -> None:
    """Compress a model, measure every stage, and write the file to deploy."""
    # Here and not above: `paredown --help` should not wait for torch.
    from app.running import run_recipe

    if out.exists() and not out.is_dir():
        raise RecipeRefused(f"--out {out}", "is a file.", "Name a folder.")
    with tempfile.TemporaryDirectory() as folder:
        run_recipe(
            recipe,
            model,
            dataset,
            out,
            architecture=arch,
            size=size,
            mean=_numbers("--mean", mean),
            std=_numbers("--std", std),
            seed=seed,
            folder=Path(folder),
        )


@app.command()
def methods() -> None:
    """List the compression methods and their settings."""
    from workers.catalog import METHODS

    terminal.show_methods(METHODS)


@app.command()
def architectures() -> None:
    """List the names that --arch takes."""
    from workers.graph.architectures import architecture_names

    for name in architecture_names():
        typer.echo(name)


def _numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RecipeRefused(
            f"{option} {text}", "is not a list of numbers.", "Write one per channel, as in .49,.48,.45."
        ) from error


def main() -> None:
    """Exit code 0 only when it worked; an error is one readable paragraph on stderr."""
    try:
        app()
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets a sentence, not a traceback
        if "--debug" in sys.argv:
            traceback.print_exc()
        if isinstance(error, ParedownError):
            terminal.show_error(str(error))
        else:
            terminal.show_error(
                f"{type(error).__name__}: {error}. This is a defect of Paredown; run the command again "
                "with --debug and report what it prints. Finished stages are kept."
            )
        sys.exit(1)


if __name__ == "__main__":
    main()
