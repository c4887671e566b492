"""Files: what stands in the agents' workspaces, and what clients recorded, searchable.

Owns files, files_fts and file_versions. sync.py reads `agents/<name>/workspace` from the disk into rows of the host tenant.
Surprise: nothing here ever writes to the disk. A record that a client posts is a row and no more, and where
the disk has a file of that path, the disk is right and the client is refused.
"""
import mimetypes
import posixpath
import re
import unicodedata
from typing import Any

from orkosi import (
    RANKS,
    UNSET,
    Conflict,
    Denied,
    Hit,
    NotFound,
    Page,
    Paging,
    Plugin,
    Struct,
    UnsetType,
    current,
    db,
    emit,
    now,
    scope_covers,
    writes,
)
from plugins import lists
from plugins.fields import Many, terms, wrong
from plugins.lists import Listing
from plugins.tenants import shares
from plugins.vault import canaries

plugin = Plugin("Files", layer="domain")
plugin.setting("sync_leave_out", str, "id_*,*.pem,*.key,*.p12,.env*,*.env,credentials*",
               "Names in workspaces that look like secrets: no row, no content; with commas between")

KEPT = 1 << 20    # bytes of content that are kept
HEAD = 64 << 10   # characters in which the excerpt of a hit is looked for
AROUND = 60       # characters of it before the hit, and twice as many from there

IDENTITY = {"SOUL.md", "IDENTITY.md", "AGENTS.md", "CLAUDE.md", "USER.md"}
CODE_NAMES = {"brain", "Makefile", "Dockerfile"}
CATEGORIES = {
    "docs": "md txt rst pdf doc docx odt csv tsv",
    "code": "py sh js ts jsx tsx go rs c h cpp java rb php swift sql json toml yaml yml html css xml",
    "media": "png jpg jpeg gif webp svg ico bmp heic mp3 wav ogg mp4 mov webm"}
_CATEGORY_OF = {ext: category for category, exts in CATEGORIES.items() for ext in exts.split()}


class FileEntry(Struct):
    """A file without its content."""
    id: int
    name: str
    path: str
    workspace: str | None
    file_type: str | None
    ext: str
    category: str
    size: int
    hash: str | None
    synced: bool
    modified_at: str | None
    created_at: str
    updated_at: str


class File(FileEntry):
    """A file with its content, where that is text and at most 1 MiB."""
    content: str | None = None


class Found(FileEntry):
    """A file that was searched for, and the words around what was found; `head` is where they are looked for."""
    excerpt: str | None = None
    head: str | None = None


class Seen(Struct):
    """A file as it stands on the disk."""
    path: str
    content: str | None
    size: int
    hash: str | None
    modified_at: str


class SearchQuery(Paging):
    """What a search for files takes."""
    limit: Many = 1000
    q: str = ""
    workspace: str | None = None
    category: str | None = None
    ext: str | None = None


COLUMNS = ("files.id, files.name, files.path, files.workspace, files.file_type, files.ext, files.category, files.size, files.hash, "
           "files.synced, files.modified_at, files.created_at, files.updated_at")

FILES = Listing(of=FileEntry, columns=COLUMNS, source="files", filters={"category": "category = :category"})

FOUND = Listing(
    # Not snippet(): its cost is quadratic in a file's length, and no deadline stops it.
    of=Found, columns=COLUMNS + f", substr(files.content, 1, {HEAD}) AS head", heavy=f"min(octet_length(files.content), {HEAD})", light=20,
    source="files_fts CROSS JOIN files ON files.id = files_fts.rowid", base="files_fts MATCH :terms AND files.tenant_id = :tenant",
    filters={"workspace": "files.workspace = :workspace", "category": "files.category = :category", "ext": "files.ext = :ext"},
    order="files_fts.rowid DESC")
FITTING = Listing(
    of=Found, columns=FOUND.columns, heavy=FOUND.heavy, light=20, source="files",
    filters={"workspace": "+workspace = :workspace", "category": "category = :category", "ext": "+ext = :ext"})

KEEP = """
    INSERT INTO files (tenant_id, name, path, workspace, file_type, ext, category, content, size, hash, synced, modified_at,
                       created_at, updated_at)
    VALUES (:tenant, :name, :path, :workspace, :file_type, :ext, :category, :content, :size, :hash, :synced, :modified_at, :now, :now)
    ON CONFLICT (tenant_id, path) DO UPDATE SET name = :name, workspace = :workspace, file_type = :file_type, ext = :ext,
       category = :category, content = :content, size = :size, hash = :hash, synced = :synced, modified_at = :modified_at,
       updated_at = :now
    RETURNING *"""


# ── reading ──


def page(query: Paging, category: str | None) -> Page[FileEntry]:
    """The files, newest first."""
    return lists.page(FILES, query, category=category)


def find(id: int) -> File:
    """One file with its content. NotFound."""
    own, file = _own(), _row(id)
    if own and file.workspace != own:
        raise NotFound(f"There is no file {id}")
    return file


def _row(id: int) -> File:
    file = db.one(File, "SELECT * FROM files WHERE id = :id AND tenant_id = :tenant", id=id)
    if file is None:
        raise NotFound(f"There is no file {id}")
    return file


def search(query: SearchQuery) -> Page[Found]:
    """Files whose name or content has all the words, newest first; without words, those that the filters fit, where there is one."""
    if own := _own():
        if query.workspace not in (None, own):
            return Page.empty(query)
        query.workspace = own
    wanted, ext = terms(query.q), query.ext and query.ext.removeprefix(".").lower()
    if wanted is None and (query.q.strip() or not (query.workspace or query.category or query.ext)):
        return Page.empty(query)
    found = lists.page(FITTING, query, ext=ext) if wanted is None else lists.page(FOUND, query, terms=wanted, ext=ext)
    looked_for = re.compile("(?!)" if wanted is None else "|".join(rf"(?<!\w){re.escape(word)}" for word in re.findall(r"\w+", query.q)), re.I)
    for file in found.items:
        file.excerpt, file.head = _excerpt(file.head, looked_for), None
    return found


def _own() -> str | None:
    """The agent whose workspace is all that whoever asks may see; None for everything. Denied for keys that are good for work alone."""
    me = current()
    if me.kind == "agent":
        return me.name
    if me.scopes is not None and "files:read" not in me.scopes:
        raise Denied("Insufficient scope: this needs files:read; an agent's own key sees its workspace")
    return None


def _excerpt(head: str | None, looked_for: re.Pattern[str]) -> str | None:
    """Some words around the first hit; the beginning where the hit is further on, or in the name."""
    if not head:
        return None
    hit = looked_for.search(head)
    at = hit.start() if hit else 0
    start = max(0, at - AROUND)
    before, after = head[start:at], head[at:at + 2 * AROUND]
    if start:
        before = "…" + before.partition(" ")[2]
    if at + 2 * AROUND < len(head):
        after = after.rpartition(" ")[0] + "…" if " " in after else after + "…"
    return " ".join((before + after).split())


@plugin.search("files")
def hits(q: str, limit: int) -> list[Hit]:
    """What the search over everything shows of files, to those who may read files."""
    me = current()
    if me.rank < RANKS["member"] or (me.scopes is not None and not scope_covers(me.scopes, "files:read")):
        return []
    return [Hit(file.id, file.name, file.path) for file in search(SearchQuery(q=q, limit=limit)).items]


# ── what a path says ──


def normal(path: str) -> str:
    """`path` as it is stored: relative, with nothing that leads elsewhere. Invalid."""
    parts = path.split("/")
    if path.startswith(("/", "~")) or ".." in parts or "\\" in path or not path.isprintable() or re.match(r"[A-Za-z]:", path):
        raise wrong("path", "Use a relative path without '..' and '\\'")
    found = posixpath.normpath(path)
    if found == ".":
        raise wrong("path", "Name a file")
    return found


def workspace_of(path: str) -> str | None:
    """The agent in whose folder this is."""
    parts = path.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "agents" else None


def category_of(path: str) -> str:
    """identity, memory, docs, code, media or other."""
    *folders, name = path.rpartition("/workspace/")[2].split("/")
    if name in IDENTITY:
        return "identity"
    if "memory" in folders or name == "MEMORY.md":
        return "memory"
    return "code" if name in CODE_NAMES else _CATEGORY_OF.get(ext_of(name), "other")


def ext_of(name: str) -> str:
    """The extension, lower case, without its dot."""
    return posixpath.splitext(name)[1][1:].lower()


def _told_by(path: str) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    return {"path": path, "name": name, "ext": ext_of(name), "workspace": workspace_of(path), "category": category_of(path),
            "file_type": mimetypes.guess_type(name)[0]}


def _spellings(path: str) -> dict[str, str]:
    """An é may be one letter or two, and a Mac's disk takes both for one file."""
    return {"composed": unicodedata.normalize("NFC", path), "decomposed": unicodedata.normalize("NFD", path)}


# ── writing ──


@writes
def record(name: str, path: str, content: str | None | UnsetType = UNSET, category: str | None = None, file_type: str | None = None) -> File:
    """Keep what a client tells of a file; what it does not say stays as it was told before. Conflict where the disk has it."""
    path = normal(path)
    before = db.one(File, """SELECT * FROM files WHERE path IN (:path, :composed, :decomposed) AND tenant_id = :tenant
                              ORDER BY synced DESC, path <> :path LIMIT 1""", path=path, **_spellings(path))
    if before and before.synced:
        raise Conflict(f"{path} is on the disk and followed there; change the file itself")
    path = before.path if before else path
    text = (before.content if before else None) if content is UNSET else content
    size = len((text or "").encode())
    if size > KEPT:
        raise wrong("content", f"At most {KEPT} bytes")
    shares.require(rows=int(before is None), bytes=size - (before.size if before else 0))
    told = _told_by(path) | ({"category": before.category, "file_type": before.file_type} if before else {}) | {"name": name}
    told |= {key: value for key, value in (("category", category), ("file_type", file_type)) if value}
    made = db.one(File, KEEP, **told, content=text, size=size, hash=None, synced=0, modified_at=None, now=now())
    emit("file.recorded", made)
    return made


@writes
def delete(id: int) -> File:
    """Forget what a client recorded of a file. NotFound; Conflict where it is on the disk, and would be there again at once."""
    gone = _row(id)
    if gone.synced:
        raise Conflict(f"{gone.path} is on the disk and followed there; delete the file itself")
    db.delete("files", id)
    emit("file.deleted", gone)
    return gone


@writes(durable=False)
def keep(changed: list[Seen], gone: list[str]) -> None:
    """Write down what the disk has, and no longer has. A file that was only touched keeps its index entries."""
    for path in gone:
        versions.keep_old(path, None)
        db.run("DELETE FROM files WHERE path = :path AND synced = 1 AND tenant_id = :tenant", path=path)
    for file in changed:
        file.content = file.content and canaries.blotted_text(file.content)
        touched = file.hash is not None and db.run("""
            UPDATE files SET modified_at = :modified_at WHERE path = :path AND hash = :hash AND synced = 1 AND tenant_id = :tenant""",
            path=file.path, hash=file.hash, modified_at=file.modified_at)
        if not touched:
            versions.keep_old(file.path, file.hash)
            db.one(dict, KEEP, **_told_by(file.path), content=file.content, size=file.size, hash=file.hash, synced=1,
                   modified_at=file.modified_at, now=now())


def known() -> dict[str, tuple[int, str]]:
    """What the table has of the disk: path → size and time of change."""
    return {path: (size, modified) for path, size, modified in db.all(
        tuple, "SELECT path, size, modified_at FROM files WHERE tenant_id = :tenant AND synced = 1")}


from . import sync as sync  # noqa: E402  # the last lines: they use the verbs above
from . import versions as versions  # noqa: E402
