"""A training process without torch: it speaks the whole protocol, and misbehaves where the job's trigger word says so.

`pause@N` waits before step N for an order to stop, `hold@N` for a file `go` in its output folder. `hang@N` reports nothing more,
`crash@N` ends without a report, `fail@N:CODE` and `flaky@N:CODE` report a permanent and a passing error, and `nul@N:CODE` a
permanent one whose text has a NUL. A resumed job behaves, except that `pause@6,15,27` pauses at the next of its steps.

What it trains is a hash chain over the steps, so that two runs agree exactly when both did every step once and in order. The
chain is in the metadata of a LoRA whose weights are zeros.
"""

import json
import os
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from services.trainer.engine.config import Job, Phase
from services.trainer.engine.reports import CheckpointReport, PhaseReport, SampleReport, StepReport, Stopped, Trained
from services.trainer.messages import ChildMessage, Failed, FromChild, Ready, Stop, ToChild, Train

stop = threading.Event()
job_given = threading.Event()
job_files: list[str] = []
messages = os.fdopen(int(sys.argv[2]), "wb", buffering=0)


def read_orders() -> None:
    for line in os.fdopen(int(sys.argv[1]), "rb"):
        match ToChild.validate_json(line):
            case Stop():
                stop.set()
            case Train(job_file=file):
                job_files.append(file)
        job_given.set()
    os._exit(0)


def send(message: ChildMessage) -> None:
    messages.write(FromChild.dump_json(message) + b"\n")


def write_samples(job: Job, step: int, digest: str) -> None:
    if not job.samples_at(step):
        return
    files = [job.output_folder / f"sample-{step}-{number}.png" for number, _ in enumerate(job.parameters.validation_prompts)]
    for file in files:
        file.write_text(f"{file.stem} {digest}")
    send(SampleReport(step=step, files=[str(file) for file in files], seeds=[0 for _ in files]))


def lora(digest: str) -> bytes:
    """Return what the asset library accepts as a LoRA of SD 1.5: a safetensors file with one pair of weights."""
    module = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora"
    header = {
        "__metadata__": {"digest": digest},
        f"{module}.down.weight": {"dtype": "F16", "shape": [1, 768], "data_offsets": [0, 1536]},
        f"{module}.up.weight": {"dtype": "F16", "shape": [320, 1], "data_offsets": [1536, 2176]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(2176)


def misbehave(job: Job, what: str, step: int, code: str) -> Failed | None:
    """Do what the trigger word says; return the failure to report, or None when training goes on."""
    message = f"made to fail at step {step}"
    match what:
        case "pause":
            stop.wait()
        case "hold":
            while not (job.output_folder / "go").exists():
                time.sleep(0.01)
        case "hang":
            threading.Event().wait()
        case "crash":
            os._exit(7)
        case "nul":
            return Failed(code=code, message=f"{message}: \0", retryable=False)
        case _:
            return Failed(code=code, message=message, retryable=what == "flaky")
    return None


def train(job: Job) -> ChildMessage:
    what, _, where = job.trigger_word.partition("@")
    numbers, _, code = where.partition(":")
    saved: dict[str, Any] = json.loads(job.resume_from.read_text()) if job.resume_from else {}
    first, digest = int(saved.get("step", 0)), str(saved.get("digest", job.seed))
    trouble_at = next((int(number) for number in numbers.split(",") if number and int(number) > first), None)
    if what != "pause" and job.resume_from:
        trouble_at = None
    send(PhaseReport(phase=Phase.TRAIN))
    for step in range(first, job.steps):
        if step == trouble_at and (failure := misbehave(job, what, step, code)):
            return failure
        digest, done = sha256(f"{digest}/{step}".encode()).hexdigest(), step + 1
        loss = 1.0 / done
        send(StepReport(step=done, loss=loss, steps_per_second=100.0, steps_run=done - first, losses=[loss]))
        if stop.is_set() or done % job.checkpoint_every_steps == 0:
            file = job.output_folder / f"checkpoint-{done}.safetensors"
            file.write_text(json.dumps({"step": done, "digest": digest}))
            send(CheckpointReport(step=done, file=str(file)))
        write_samples(job, done, digest)
        if stop.is_set():
            return Stopped(steps_run=done - first)
    file = job.output_folder / "lora.safetensors"
    file.write_bytes(lora(digest))
    return Trained(file=str(file), steps_run=job.steps - first)


threading.Thread(target=read_orders, daemon=True).start()
send(Ready(device="cpu", seconds=0.0))
job_given.wait()
if job_files:
    send(train(Job.model_validate_json(Path(job_files[0]).read_bytes())))
