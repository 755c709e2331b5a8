"""What can be wrong with a file, or with where it is to be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


class CorruptFile(ValueError):
    """A file is not what was written; the message names it, the check that failed, and the mend."""

    def __init__(self, path: str | Path, check: str, mend: str) -> None:
        super().__init__(f"{path}: {check}; {mend}")
        self.path, self.check, self.mend = path, check, mend

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.check, self.mend)


class WrongFile(ValueError):
    """A file is whole, but of another thing than was asked for, or of another version; named as by `CorruptFile`."""

    def __init__(self, path: str | Path, check: str, mend: str) -> None:
        super().__init__(f"{path}: {check}; {mend}")
        self.path, self.check, self.mend = path, check, mend

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.check, self.mend)


class MissingFile(FileNotFoundError):
    """There is no such file; the message says where it was looked for and what writes it."""


class FolderInUse(RuntimeError):
    """Another process, or another thread, is writing into a folder. Nothing was written."""


class PickledFile(WrongFile):
    """A file is a pickle: loading one runs whatever code it holds. The message has the lines that convert it."""

    def __init__(self, path: Path) -> None:
        ValueError.__init__(
            self,
            f"{path} is a pickle, which can run code when loaded; convert it to safetensors first, with torch's reader "
            f"of plain tensors: t = torch.load({path.name!r}, weights_only=True); t = t.get('state_dict', t); "
            f"safetensors.torch.save_file({{n: x.contiguous() for n, x in t.items() if torch.is_tensor(x)}}, "
            f"{path.with_suffix('.safetensors').name!r})",
        )
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)


def refuse_pickle(path: Path) -> None:
    """PickledFile for a file that is called as pickles are."""
    if path.suffix in PICKLES:
        raise PickledFile(path)
