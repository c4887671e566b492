"""The wire of files: /files."""
from typing import Annotated

from orkosi import UNSET, Deleted, Meta, Page, Paging, Struct, UnsetType, may
from plugins import files
from plugins.fields import wrong
from plugins.files import File, FileEntry, SearchQuery, plugin, versions
from plugins.files.versions import Difference, FileVersion

READ = may("member", "files:read or queue:work")  # of an agent, its own workspace: the verbs see to it
Word = Annotated[str, Meta(min_length=1, max_length=100)]


class NewFile(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=255)]
    path: Annotated[str, Meta(min_length=1, max_length=1024)]
    file_type: Word | None = None
    category: Word | None = None
    content: str | None | UnsetType = UNSET


class Hit(FileEntry):
    """A file that was found, and the words around."""
    excerpt: str | None = None


class FileQuery(Paging):
    category: str | None = None
    page: Annotated[int, Meta(ge=1, le=1_000_000, description="Instead of offset: which page, from 1")] | None = None


class DiffQuery(Struct, forbid_unknown_fields=True, rename={"old": "from", "new": "to"}):
    old: Annotated[int, Meta(ge=1, le=2**53, description="A version's id; without it, the last one before the present")] | None = None
    new: Annotated[int, Meta(ge=1, le=2**53, description="Another; without it, the present")] | None = None


@plugin.get("/api/files", auth=may("member", "files:read"))
def index(query: FileQuery) -> Page[FileEntry]:
    """List files, without their content

    Newest first."""
    if query.page is not None and (query.offset or query.after):
        raise wrong("page", "Say `page`, `offset` or `after`, and no two of them")
    offset = query.offset if query.page is None else (query.page - 1) * query.limit
    return files.page(Paging(limit=query.limit, offset=offset, after=query.after), query.category)


@plugin.post("/api/files", auth=may("member", "files:write"), status=201, raises=(400, 409), max_body=4 << 20)
def create(body: NewFile) -> File:
    """Record a file, or record it anew

    A row and nothing on the disk. Recorded anew, what is not sent stays as it was. 409 where the disk has a file of that path."""
    return files.record(body.name, body.path, body.content, body.category, body.file_type)


@plugin.get("/api/files/search", auth=READ, tool="file_search")
def search(query: SearchQuery) -> Page[Hit]:
    """Search files by name and content

    An agent's key finds those of its workspace.
    Newest first: files that have all the words, or words that begin with them. Without `q`, all that the filters fit."""
    return files.search(query).map(lambda file: Hit(**{name: getattr(file, name) for name in Hit.__struct_fields__}))


@plugin.get("/api/files/{id}", auth=READ, raises=(404,), tool="file_read")
def show(id: int) -> File:
    """Get a file with its content

    An agent's key gets those of its workspace. The content is null where it is no text, or larger than 1 MiB."""
    return files.find(id)


@plugin.delete("/api/files/{id}", auth=may("editor", "files:write"), raises=(404, 409))
def delete(id: int) -> Deleted:
    """Forget a file that a client recorded; 409 where it is on the disk"""
    files.delete(id)
    return Deleted(id)


@plugin.get("/api/files/{id}/versions", auth=may("member", "files:read"), raises=(404,))
def list_versions(id: int) -> list[FileVersion]:
    """List what a file of a workspace said before, newest first; the first is the present"""
    return versions.versions(id)


@plugin.get("/api/files/{id}/diff", auth=may("member", "files:read"), raises=(400, 404, 422))
def diff(id: int, query: DiffQuery) -> Difference:
    """Show what changed from one version of a file to another, or to the present"""
    return versions.difference(id, query.old, query.new)
