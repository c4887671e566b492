"""Run the server on a disk whose flush takes as long as Apple's F_FULLFSYNC: `slow_disk.py MILLISECONDS serve …`.

The delay is in SQLite's own xSync, through a VFS; everything else is the server as it is.
"""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import apsw  # noqa: E402

import orkosi  # noqa: E402
from plugins import storage  # noqa: E402

DELAY = float(sys.argv.pop(1)) / 1000


class Disk(apsw.VFS):
    def __init__(self):
        super().__init__("slow", "")

    def xOpen(self, name, flags):
        return File("", name, flags)


class File(apsw.VFSFile):
    def xSync(self, flags):
        super().xSync(flags)
        time.sleep(DELAY)


disk = Disk()
storage.open_data.__kwdefaults__["vfs"] = "slow"
sys.exit(orkosi.main())
