"""What a service reads uploaded weights with, in the confined child: `sandbox.read(readers.LORA, "the LoRA", path)`."""

from pydantic import TypeAdapter

from shared.formats.checkpoint import CheckpointInfo, Layout, lay_out, read_file
from shared.formats.confinement import Limits
from shared.formats.controlnet import ControlNetInfo
from shared.formats.embedding import EmbeddingInfo, read_embedding
from shared.formats.lora.info import LoraInfo, read_lora
from shared.formats.lora.layouts import Converted, convert
from shared.formats.sandbox import Reader
from shared.formats.vae import VaeInfo, read_vae

# Every value of up to 2 GiB is looked at, which takes some seconds on a fast machine.
LORA = Reader(read_lora, TypeAdapter(LoraInfo), limits=Limits(cpu_s=60))
CONVERTED_LORA = Reader(convert, TypeAdapter(Converted), limits=Limits(cpu_s=120, output_bytes=3 << 30))
VAE = Reader(read_vae, TypeAdapter(VaeInfo))
EMBEDDING = Reader(read_embedding, TypeAdapter(EmbeddingInfo))
CHECKPOINT: Reader[CheckpointInfo | ControlNetInfo] = Reader(read_file, TypeAdapter(CheckpointInfo | ControlNetInfo))
LAYOUT = Reader(lay_out, TypeAdapter(Layout))
