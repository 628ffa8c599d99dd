"""`paredown`: the product without a browser."""

import math
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated

import typer

from app import terminal
from workers.errors import ParedownError, SettingRefused

#: What a form shows as fields is named here, since the error itself does not know where it is read.
OPTIONS = "The options are --arch (`paredown architectures` lists the names), --size, --mean and --std."

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
    other: Annotated[
        list[str] | None,
        typer.Option(help="A model that a step names, e.g. a teacher: NAME=FILE, or NAME=FILE:ARCH."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of splits, shuffling and training.")] = 0,
    runtime: Annotated[
        str, typer.Option(help="Measure in NAME (see `paredown runtimes`), in all, or in the fastest.")
    ] = "onnxruntime",
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,  # noqa: ARG001 - read by main
) -> None:
    """Compress a model, measure every stage, and write the file to deploy."""
    _check_out(out)
    means, stds = _numbers("--mean", mean), _numbers("--std", std)
    others = dict(_other(text) for text in other or ())
    # Here and not above: `paredown --help` should not wait for torch.
    from app.running import run_recipe

    with tempfile.TemporaryDirectory() as folder:
        run_recipe(
            recipe,
            model,
            dataset,
            out,
            architecture=arch,
            size=size,
            mean=means,
            std=stds,
            others=others,
            seed=seed,
            runtime=runtime,
            folder=Path(folder),
        )


@app.command()
def up() -> None:
    """Start the dashboard, a worker and a broker; Ctrl-C ends them all."""
    from app import serving

    serving.up()


@app.command()
def demo(
    exit_: Annotated[
        bool, typer.Option("--exit", help="End after the table, instead of serving on.")
    ] = False,
) -> None:
    """Start everything, compress the sample with several recipes, print what came out, and serve on."""
    from app.demo import run_demo

    run_demo(serve_on=not exit_)


@app.command()
def worker(
    target: Annotated[
        str | None, typer.Option(help="Name of this machine as a place to measure on; it does nothing else.")
    ] = None,
    queues: Annotated[
        str | None, typer.Option(help="cpu, gpu or both, also beside --target; else what the device can do.")
    ] = None,
) -> None:
    """Take jobs from the queue, one at a time."""
    from app import serving

    serving.worker(serving.queue_names(queues), target)


@app.command()
def web() -> None:
    """Serve the dashboard alone; `up` also starts a worker and a broker."""
    from app import serving

    serving.web()


@app.command()
def doctor(
    worker: Annotated[
        bool, typer.Option("--worker", help="Only whether a worker of this host is online.")
    ] = False,
) -> None:
    """Say what is missing on this machine and the command that adds it."""
    from app import doctor as checks
    from db.settings import Settings

    if worker:
        raise typer.Exit(0 if checks.worker_online(Settings()) else 1)
    found = list(checks.findings(Settings()))
    terminal.show_findings(found)
    raise typer.Exit(0 if all(finding.well or not finding.needed for finding in found) else 1)


@app.command()
def methods() -> None:
    """List the compression methods and their settings."""
    from workers.catalog import METHODS

    terminal.show_methods(METHODS)


@app.command()
def runtimes() -> None:
    """List the runtimes that --runtime takes, and the commands that add the others."""
    from workers.places import runtime_facts

    terminal.show_runtimes(runtime_facts())


@app.command()
def architectures() -> None:
    """List the names that --arch takes."""
    from workers.graph.architectures import architecture_names

    for name in architecture_names():
        typer.echo(name)


def _check_out(folder: Path) -> None:
    """Here and not after hours of training."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ParedownError(f"--out {folder}", f"cannot be made: {there} is a file.", "Name a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ParedownError(
            f"--out {folder}", f"cannot be written: {there} is not yours.", "Name another one."
        )


def _other(text: str) -> tuple[str, tuple[Path, str | None]]:
    """NAME=FILE[:ARCH] -> (name, (file, architecture))."""
    name, equals, rest = text.partition("=")
    if not (name and equals and rest):
        raise ParedownError(f"--other {text}", "is not NAME=FILE.", "Write for example teacher=big.pt2.")
    file, colon, architecture = rest.rpartition(":")
    if not colon or Path(rest).exists():
        return name, (Path(rest), None)
    return name, (Path(file), architecture)


def _numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise ParedownError(
            f"{option} {text}", "is not a list of numbers.", "Write one per channel, as in .49,.48,.45."
        )
    return numbers


def _sentence(error: Exception) -> str:
    if isinstance(error, SettingRefused):
        return f"{error} {OPTIONS}"
    if isinstance(error, ParedownError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return (
            f"{error.filename or 'The system'}: {error.strerror}. Make room or give access, then run the "
            "command again: finished stages are kept."
        )
    return (
        f"{type(error).__name__}: {' '.join(str(error).split())[:500]}. This is a defect of Paredown; run "
        "the command again with --debug and report what it prints. Finished stages are kept."
    )


def main() -> None:
    """Exit code 0 only when it worked; an error is one readable paragraph on stderr."""
    try:
        app()
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets a sentence, not a traceback
        if "--debug" in sys.argv:
            traceback.print_exc()
        terminal.show_error(_sentence(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
