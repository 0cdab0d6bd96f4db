"""`download`: the official weights from the Hugging Face Hub, for those whom Meta gave access."""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastsam3d.basics.options import describe_options, option, optional_text, parse_options
from fastsam3d.basics.paths import user_path
from fastsam3d.cli.console import say
from fastsam3d.cli.flags import asks_for_help
from fastsam3d.errors import UserError
from fastsam3d.sam3d.checkpoints.sources import HUB, MOGE_REPOSITORY, SAM3D_REPOSITORY

COMMAND = "python -m fastsam3d download"
MARGIN = 1.02
"""Free space asked for, relative to the files' sizes."""


@dataclass(frozen=True)
class Source:
    """A repository of the Hub, the files of it that are wanted, and how the folder is used afterwards."""

    repository: str
    patterns: tuple[str, ...]
    use: str

    def wants(self, name: str) -> bool:
        """Tells whether a file of the repository is fetched."""
        return any(fnmatch.fnmatch(name, pattern) for pattern in self.patterns)


SOURCES = {
    "sam3d": Source(
        SAM3D_REPOSITORY,
        ("checkpoints/*", "LICENSE*", "README*"),
        "python infer.py model=sam3d checkpoint_dir={output}",
    ),
    "moge": Source(MOGE_REPOSITORY, ("model.pt", "README*"), "python infer.py depth=moge depth_model={output}"),
}


def _source(text: str) -> str:
    if text not in SOURCES:
        raise ValueError(" or ".join(SOURCES))
    return text


@dataclass(frozen=True)
class Options:
    """Settings of the command."""

    model: str = option("sam3d", _source, "what to fetch: sam3d, or moge (point maps from a picture alone)")
    output: str | None = option(None, optional_text, "folder; null: checkpoints/sam3d or checkpoints/moge")
    revision: str | None = option(None, optional_text, "branch, tag or commit of the repository; null: its main")


def main(words: list[str]) -> int:
    """Runs the command; returns its exit code.

    Raises:
        UserError: no access, no token, no network, no space, or huggingface_hub is not installed.
    """
    if asks_for_help(words):
        say(
            f"{describe_options(Options, COMMAND)}\n\n"
            f"Fetches {SOURCES['sam3d'].repository}, which Meta gives out on request under its own licence: ask on\n"
            f"{_page(SOURCES['sam3d'].repository)}, then log in with `hf auth login`. An interrupted download goes on\n"
            "where it stopped. Nothing is fetched by any other command.\n"
        )
        return 0
    options = parse_options(Options, words, COMMAND)
    source = SOURCES[options.model]
    output = user_path(options.output or f"checkpoints/{options.model}")
    fetch(source, output, options.revision)
    say(f"{source.repository} is in {output}. Use it with\n  {source.use.format(output=output)}\n")
    return 0


def fetch(source: Source, output: Path, revision: str | None = None) -> None:
    """Puts the files of a repository into a folder.

    Raises:
        UserError: as `main`.
    """
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(
            "download needs the package huggingface_hub: pip install 'fastsam3d[sam3d]', or fetch "
            f"{_page(source.repository)} by other means."
        ) from None
    made = False
    try:
        api = hub.HfApi()
        if hasattr(api, "auth_check"):
            # What a gated repository holds is public, only its files are not: asked before anything is made.
            api.auth_check(source.repository)
        information = api.model_info(source.repository, revision=revision, files_metadata=True)
        files = {file.rfilename: file.size or 0 for file in information.siblings if source.wants(file.rfilename)}
        _check_space(files, output)
        size = sum(files.values()) / 2**30
        print(f"fetching {len(files)} files, {size:.1f} GiB, into {output}", file=sys.stderr, flush=True)
        made = not output.exists()
        output.mkdir(parents=True, exist_ok=True)
        hub.snapshot_download(
            source.repository,
            # The commit that was looked at, whatever happens to the branch in the meantime.
            revision=information.sha,
            local_dir=str(output),
            allow_patterns=list(source.patterns),
        )
    except UserError:
        raise
    except Exception as error:
        if made:
            with contextlib.suppress(OSError):
                output.rmdir()  # only where nothing is in it
        message = _explain(error, source.repository, output)
        if message is None:
            raise
        raise UserError(message) from error


def _check_space(files: dict[str, int], output: Path) -> None:
    if not files:
        raise UserError("the repository holds none of the expected files. Give another revision, or none.")
    there = [output / name for name in files if (output / name).is_file()]
    needed = MARGIN * sum(files.values()) - sum(path.stat().st_size for path in there)
    parent = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UserError(
            f"{output} needs {needed / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB are free there. "
            "Make room, or give another folder as output=DIR."
        )


def _explain(error: Exception, repository: str, output: Path) -> str | None:
    """Explains an error in one line for people; None where they cannot put it right.

    Classes are compared by name: they lie in other modules in other versions of huggingface_hub, and what the network
    raises depends on the library below it.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    page = _page(repository)
    if "GatedRepoError" in names:
        if status == 401:
            return (
                f"{repository} is given out on request, and you are not logged in. Ask for access on {page}, then run "
                "`hf auth login` with a token of that account (or set HF_TOKEN)."
            )
        return (
            f"Your account has no access to {repository} yet. Ask for it on {page}; Meta answers by mail. If it was "
            "granted, check that the token belongs to that account and may read gated repositories."
        )
    if "LocalTokenNotFoundError" in names or status == 401:
        return f"The Hub does not accept your token. Run `hf auth login` again; access is asked for on {page}."
    if "RevisionNotFoundError" in names:
        return f"{repository} has no such revision. Leave revision out, or see {page}/tree/main."
    if "RepositoryNotFoundError" in names or status == 403:
        return f"{repository} was not found, or your token may not see it. Look at {page} in a browser."
    if "OfflineModeIsEnabled" in names:
        return "The Hub is switched off by HF_HUB_OFFLINE. Unset it, or copy the folder from another machine."
    if isinstance(status, int) and status >= 500:
        return f"The Hub answers with an error ({status}). Try again later; what was fetched is kept."
    network = {"ConnectionError", "ConnectError", "TimeoutException", "Timeout", "TimeoutError", "TransportError",
               "LocalEntryNotFoundError", "gaierror"}  # fmt: skip
    if names & network:
        return (
            f"huggingface.co cannot be reached ({_first_line(error)}). Check the network or the proxy (HTTPS_PROXY, "
            "HF_ENDPOINT for a mirror) and run the command again: it goes on where it stopped."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return f"{output} cannot be written: {error.strerror or error}. Give another folder as output=DIR."
    if names & {"HfHubHTTPError", "HTTPError"}:
        return f"The Hub refuses the download ({_first_line(error)}). See {page}."
    return None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _page(repository: str) -> str:
    return f"{HUB}/{repository}"
