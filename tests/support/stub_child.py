"""A training process without torch: it speaks the whole protocol, and misbehaves where the job's trigger word says so.

Before step N, `pause@N` waits for an order to stop, `hold@N` waits for a file `go` in its output folder, `hang@N` hangs without a
report, `crash@N` exits without a report, and `fail@N:CODE` and `flaky@N:CODE` report a permanent and a retryable error. A resumed
job misbehaves only with `pause@6,15,27`, which pauses at the next of its steps.

It trains a hash chain over the steps, so that two runs agree only when both did every step once and in order. The chain's last
hash stands in the metadata of a LoRA of zeros.
"""

import json
import os
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path

from services.trainer.engine.config import Job, Phase
from services.trainer.messages import (
    CheckpointReport,
    ChildReport,
    Failed,
    FromChild,
    PhaseReport,
    Ready,
    SampleReport,
    StepReport,
    Stop,
    Stopped,
    ToChild,
    Train,
    Trained,
)

stop = threading.Event()
job_given = threading.Event()
job_files: list[str] = []
reports = os.fdopen(int(sys.argv[2]), "wb", buffering=0)


def listen() -> None:
    for line in os.fdopen(int(sys.argv[1]), "rb"):
        order = ToChild.validate_json(line)
        if isinstance(order, Stop):
            stop.set()
        elif isinstance(order, Train):
            job_files.append(order.job_file)
        job_given.set()
    os._exit(0)


def send(report: ChildReport) -> None:
    reports.write(FromChild.dump_json(report) + b"\n")


def draw(job: Job, step: int, digest: str) -> None:
    if not job.samples_at(step):
        return
    images = [job.output_folder / f"sample-{step}-{number}.png" for number, _ in enumerate(job.parameters.validation_prompts)]
    for image in images:
        image.write_text(f"{image.stem} {digest}")
    send(SampleReport(step=step, files=[str(image) for image in images], seeds=[0 for _ in images]))


def lora(digest: str) -> bytes:
    """Return a safetensors file with one pair of weights, which the library takes for a LoRA of SD 1.5."""
    module = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora"
    header = {
        "__metadata__": {"digest": digest},
        f"{module}.down.weight": {"dtype": "F16", "shape": [1, 768], "data_offsets": [0, 1536]},
        f"{module}.up.weight": {"dtype": "F16", "shape": [320, 1], "data_offsets": [1536, 2176]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(2176)


def train(job: Job) -> ChildReport:  # noqa: C901 - one branch for each misbehaviour
    state = {"step": 0, "digest": str(job.seed)}
    if job.resume_from:
        state = json.loads(job.resume_from.read_text())
    what, _, where = job.trigger_word.partition("@")
    numbers, _, code = where.partition(":")
    first = state["step"]
    trouble_at = next((int(number) for number in numbers.split(",") if number and int(number) > first), None)
    if what != "pause" and job.resume_from:
        trouble_at = None
    send(PhaseReport(phase=Phase.TRAIN))
    for step in range(first, job.steps):
        if step == trouble_at:
            if what == "pause":
                stop.wait()
            elif what == "hold":
                while not (job.output_folder / "go").exists():
                    time.sleep(0.01)
            elif what == "hang":
                threading.Event().wait()
            elif what == "crash":
                os._exit(7)
            else:
                return Failed(code=code, message=f"made to fail at step {step}", retryable=what == "flaky")
        state = {"step": step + 1, "digest": sha256(f"{state['digest']}/{step}".encode()).hexdigest()}
        send(
            StepReport(
                step=step + 1,
                loss=1.0 / (step + 1),
                steps_per_second=100.0,
                steps_run=step + 1 - first,
                losses=[1.0 / (step + 1)],
            )
        )
        if stop.is_set() or (step + 1) % job.checkpoint_every_steps == 0:
            file = job.output_folder / f"checkpoint-{step + 1}.safetensors"
            file.write_text(json.dumps(state))
            send(CheckpointReport(step=step + 1, file=str(file)))
        draw(job, step + 1, state["digest"])
        if stop.is_set():
            return Stopped(steps_run=step + 1 - first)
    file = job.output_folder / "lora.safetensors"
    file.write_bytes(lora(state["digest"]))
    return Trained(file=str(file), steps_run=job.steps - first)


threading.Thread(target=listen, daemon=True).start()
send(Ready(device="cpu", seconds=0.0))
job_given.wait()
if job_files:
    send(train(Job.model_validate_json(Path(job_files[0]).read_bytes())))
