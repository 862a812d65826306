"""Model repositories on the Hugging Face hub: which of their files is the asset."""

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
_USUAL = {
    "lora": ("pytorch_lora_weights.safetensors",),
    "vae": ("diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"),
    "textual_inversion": ("learned_embeds.safetensors",),
}
_NOT_NEEDED = {"safety_checker", "feature_extractor", "image_encoder"}
_WEIGHTS = {"diffusion_pytorch_model.safetensors", "model.safetensors"}
_WITH_WEIGHTS = {"unet", "vae", "text_encoder", "text_encoder_2"}


@dataclass(frozen=True)
class HubRepo:
    """A repository at its newest commit: the address below which its files lie, and their names."""

    files_url: str
    names: Sequence[str]

    @classmethod
    async def find(cls, fetcher: Fetcher, endpoint: str, repo: str, token: str | None) -> "HubRepo":
        """Ask the hub. The commit is pinned, so that files fetched one after the other belong together."""
        url = f"{endpoint.rstrip('/')}/api/models/{repo}"
        document = await fetcher.read_json(url, max_bytes=_MAX_JSON_BYTES, token=token)
        try:
            sha, names = str(document["sha"]), [str(file["rfilename"]) for file in document["siblings"]]
        except (KeyError, TypeError) as error:
            msg = f"hf_repo: the hub's answer about {repo} does not list its files"
            raise InvalidError(msg) from error
        return cls(f"{endpoint.rstrip('/')}/{repo}/resolve/{quote(sha, safe='')}", names)

    def url(self, name: str) -> str:
        """Return a file's address."""
        return f"{self.files_url}/{quote(name)}"

    def one_file(self, asset_type: str) -> str:
        """Return the name of the file that is the asset. Raises InvalidError when that is not clear."""
        for usual in _USUAL.get(asset_type, ()):
            if usual in self.names:
                return usual
        found = sorted(name for name in self.names if name.endswith(".safetensors") and "/" not in name)
        if len(found) == 1:
            return found[0]
        some = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")  # noqa: PLR2004 - enough to choose from
        what = f"holds several safetensors files ({some})" if found else "holds no safetensors file at its top"
        msg = f"hf_repo: the repository {what}; give the address of the one you mean as url"
        raise InvalidError(msg)

    def folder(self, index: dict[str, Any]) -> dict[str, str]:
        """Return which files make up a checkpoint in diffusers' layout: where each belongs, and its name in the repository.

        `index` is the repository's model_index.json. Half precision is preferred where there is a choice. Raises
        InvalidError for a part without safetensors.
        """
        parts = {part for part, kind in index.items() if isinstance(kind, list) and kind and kind[0]} - _NOT_NEEDED
        files = {_INDEX: _INDEX}
        # Sorted, .fp16.safetensors comes before .safetensors, and the first one stays.
        for name in sorted(self.names):
            part, _, file = name.partition("/")
            if part not in parts or "/" in file or file.endswith(".index.json"):
                continue
            plain = file.replace(".fp16.", ".")
            if plain in _WEIGHTS or Path(file).suffix in {".json", ".txt"}:
                files.setdefault(f"{part}/{plain}", name)
        without = sorted(part for part in parts & _WITH_WEIGHTS if not any(f"{part}/{weights}" in files for weights in _WEIGHTS))
        if without:
            msg = f"hf_repo: the repository's {without[0]} has no safetensors file of its own; nothing else is taken"
            raise InvalidError(msg)
        return files


async def bring(
    fetcher: Fetcher, endpoint: str, repo: str, asset_type: str, folder: Path, *, max_bytes: int, token: str | None
) -> tuple[Path, int]:
    """Fetch what a repository holds for an asset into one file below `folder`; return its path and size in bytes."""
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
    checkpoint.pack(parts, target)
    return target, target.stat().st_size
