"""Model repositories on the Hugging Face hub: chooses and fetches the files that make up an asset."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from services.upload.imports.fetching import Fetcher
from shared.errors import InvalidError
from shared.formats import checkpoint

_INDEX = "model_index.json"
_MAX_JSON_BYTES = 8 * 2**20
_USUAL_NAMES = {
    "lora": ("pytorch_lora_weights.safetensors",),
    "vae": ("diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"),
    "textual_inversion": ("learned_embeds.safetensors",),
}
_NOT_NEEDED = {"safety_checker", "feature_extractor", "image_encoder"}
_WEIGHTS = {"diffusion_pytorch_model.safetensors", "model.safetensors"}
_WITH_WEIGHTS = {"unet", "vae", "text_encoder", "text_encoder_2"}


@dataclass(frozen=True)
class HubRepo:
    """A repository at its newest commit: the URL below which its files are, and their names."""

    files_url: str
    names: Sequence[str]

    @classmethod
    async def find(cls, fetcher: Fetcher, endpoint: str, repo: str, token: str | None) -> "HubRepo":
        """Ask the hub for a repository. Its commit is pinned, so that all files are of the same version."""
        url = f"{endpoint.rstrip('/')}/api/models/{repo}"
        document = await fetcher.read_json(url, max_bytes=_MAX_JSON_BYTES, token=token)
        try:
            sha, names = str(document["sha"]), [str(file["rfilename"]) for file in document["siblings"]]
        except (KeyError, TypeError) as error:
            msg = f"hf_repo: the hub does not list the files of {repo}; give the URL of the file as url"
            raise InvalidError(msg) from error
        return cls(f"{endpoint.rstrip('/')}/{repo}/resolve/{quote(sha, safe='')}", names)

    def url(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self.files_url}/{quote(name)}"

    def one_file(self, asset_type: str) -> str:
        """Return the name of the file that is the asset. Raises InvalidError when no file or several could be."""
        for usual in _USUAL_NAMES.get(asset_type, ()):
            if usual in self.names:
                return usual
        found = sorted(name for name in self.names if name.endswith(".safetensors") and "/" not in name)
        if len(found) == 1:
            return found[0]
        some = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")  # noqa: PLR2004 - five names are enough to choose from
        what = f"has several safetensors files ({some})" if found else "has no safetensors file at its top level"
        msg = f"hf_repo: the repository {what}; give the URL of the file as url"
        raise InvalidError(msg)

    def folder(self, index: dict[str, Any]) -> dict[str, str]:
        """Return the files of a checkpoint in diffusers' layout: the path of each in the checkpoint, and in the repository.

        `index` is the repository's model_index.json. Half precision is preferred where both exist. Raises InvalidError for
        a part without safetensors.
        """
        parts = {part for part, kind in index.items() if isinstance(kind, list) and kind and kind[0]} - _NOT_NEEDED
        files = {_INDEX: _INDEX}
        # In sorted order .fp16.safetensors comes before .safetensors, and the first one wins.
        for name in sorted(self.names):
            part, _, file = name.partition("/")
            if part not in parts or "/" in file or file.endswith(".index.json"):
                continue
            plain = file.replace(".fp16.", ".")
            if plain in _WEIGHTS or Path(file).suffix in {".json", ".txt"}:
                files.setdefault(f"{part}/{plain}", name)
        without = sorted(part for part in parts & _WITH_WEIGHTS if not any(f"{part}/{weights}" in files for weights in _WEIGHTS))
        if without:
            msg = (
                f"hf_repo: the repository's {without[0]} has no safetensors file; choose a repository that has one for each part"
            )
            raise InvalidError(msg)
        return files


async def fetch(
    fetcher: Fetcher, endpoint: str, repo: str, asset_type: str, folder: Path, *, max_bytes: int, token: str | None
) -> tuple[Path, int]:
    """Fetch an asset from a repository into one file in `folder`; return its path and its size in bytes."""
    found = await HubRepo.find(fetcher, endpoint, repo, token)
    target = folder / "import"
    if asset_type != "checkpoint" or _INDEX not in found.names:
        name = found.one_file(asset_type)
        return target, await fetcher.fetch(found.url(name), target, max_bytes=max_bytes, token=token)
    index = await fetcher.read_json(found.url(_INDEX), max_bytes=_MAX_JSON_BYTES, token=token)
    if not isinstance(index, dict):
        msg = f"hf_repo: {_INDEX} is not a JSON object"
        raise InvalidError(msg)
    left, parts = max_bytes, folder / "parts"
    for place, name in found.folder(cast("dict[str, Any]", index)).items():
        path = parts / place
        path.parent.mkdir(parents=True, exist_ok=True)
        left -= await fetcher.fetch(found.url(name), path, max_bytes=left, token=token)
    await asyncio.to_thread(checkpoint.pack, parts, target)
    return target, target.stat().st_size
