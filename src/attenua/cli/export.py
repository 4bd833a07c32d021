"""`attenua export RUN_DIR`: write a run's average as one model file."""

from __future__ import annotations

from pathlib import Path

import click

from attenua.cli import common

__all__ = ["command"]


@click.command("export")
@click.argument("run_dir", metavar="RUN_DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out", "-o", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The model file to write."
)
@click.option("--ema", type=float, metavar="WIDTH", help="Relative width of the average, above 0, below 0.28.")
@click.option(
    "--kind", default="int8", show_default=True, metavar="KIND", help="Numbers at rest: int8, float16 or float32."
)
@common.overwrite_option
@common.json_option
def command(run_dir: Path, out: Path, ema: float | None, kind: str, overwrite: bool, as_json: bool) -> None:
    """Write the averaged weights of a finished run as one model file.

    --ema rebuilds an average of any relative width (0.05 weighs about the last twentieth of the run) from the run's
    snapshots, as of the last one. Without it, the model that the finished run wrote: its first average. The path of
    what was written is printed.
    """
    common.check_output(out, overwrite=overwrite)
    from attenua import weights

    if ema is None:
        path = run_dir / "model.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"{run_dir} holds no finished model; give --ema WIDTH to take one from its snapshots"
            )
        content = weights.read(path)
    else:
        from attenua.training import reconstruct

        content = reconstruct(run_dir, ema)
    weights.write(out, content, kind, overwrite=overwrite)
    header = weights.read_header(out)
    result = {"out": out, "kind": kind, "bytes": header.bytes, "sha256": header.sha256}
    common.emit(result, as_json=as_json, text=str(out))
