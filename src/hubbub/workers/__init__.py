"""`hubbub serve --workers N`: processes that share one port, and their parent.

Each worker is a node of its own, started by the command that started the parent: so it reads code and settings anew
whenever it is started, and shares no memory with what was there before a fork.
"""

from hubbub.workers.place import Place, take_place
from hubbub.workers.supervisor import Supervisor, ending_s

__all__ = ["Place", "Supervisor", "ending_s", "take_place"]
