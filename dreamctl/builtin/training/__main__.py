"""Makes the built-in model from nothing: `python -m dreamctl.builtin.training --work FOLDER [--only STAGE]`.

Stages that are done are skipped, one that was stopped goes on. It does not know what a stage does.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

STAGES = {
    "vae": "vae:train_vae",
    "text": "text:train_text_encoder",
    "pool": "pool:make_pool",
    "unet": "unet:train_unet",
    "decoder": "decoder:train_decoder",
    "reader": "reader:train_reader",
    "export": "export:export",
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the stages in order."""
    parser = argparse.ArgumentParser(prog="python -m dreamctl.builtin.training", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/builtin"), help="folder of checkpoints and latents")
    parser.add_argument("--only", choices=STAGES, action="append", help="run this stage alone (may be repeated)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of one thread each")
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    from dreamctl.builtin.training.parallel import run_stage

    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.only or STAGES:
        module, function = STAGES[name].split(":")
        print(f"== {name}", flush=True)
        stage = getattr(importlib.import_module(f"dreamctl.builtin.training.{module}"), function)
        run_stage(stage, options.work, options.processes)


if __name__ == "__main__":
    main()
