"""The one writer of files: whole or absent, checked when read, never pickled; and the one home of hashing.

A file is written beside its place under a name of its own, flushed to the disk, and renamed; the folder is flushed
too, so that what is written later never outlives what was written before it. A reader sees the old file or the new
one, however many write it and whenever one of them is killed. What a killed writer leaves ends in `UNFINISHED`.

What is read is what was written: a seal over all that has meaning, and the kind and range of every field. A file that
is not ends in one of three errors, whatever is wrong with it: `MissingFile`, `CorruptFile`, `WrongFile`.
"""

from concept_probe.storage.errors import (
    PICKLES,
    CorruptFile,
    FolderInUse,
    MissingFile,
    WrongFile,
    refuse_pickle,
)
from concept_probe.storage.folders import inside, only_writer
from concept_probe.storage.hashing import (
    bytes_sha256,
    check_file,
    content_sha256,
    file_sha256,
    tensors_sha256,
    text_sha256,
)
from concept_probe.storage.json_files import (
    SEAL,
    check_seal,
    parse_json,
    read_json,
    read_text,
    seal_of,
    sealed,
    write_sealed_json,
)
from concept_probe.storage.lines import append_line, holds_whole_object, open_here, without_mark
from concept_probe.storage.pictures import read_picture
from concept_probe.storage.schema import check_fields
from concept_probe.storage.tensors import read_arrays, read_tensors, tensor_entries, write_sealed, write_tensors
from concept_probe.storage.writing import UNFINISHED, json_text, remove_unfinished, write_bytes, write_json, write_text

__all__ = [
    "PICKLES",
    "SEAL",
    "UNFINISHED",
    "CorruptFile",
    "FolderInUse",
    "MissingFile",
    "WrongFile",
    "append_line",
    "bytes_sha256",
    "check_fields",
    "check_file",
    "check_seal",
    "content_sha256",
    "file_sha256",
    "holds_whole_object",
    "inside",
    "json_text",
    "only_writer",
    "open_here",
    "parse_json",
    "read_arrays",
    "read_json",
    "read_picture",
    "read_tensors",
    "read_text",
    "refuse_pickle",
    "remove_unfinished",
    "seal_of",
    "sealed",
    "tensor_entries",
    "tensors_sha256",
    "text_sha256",
    "without_mark",
    "write_bytes",
    "write_json",
    "write_sealed",
    "write_sealed_json",
    "write_tensors",
    "write_text",
]
