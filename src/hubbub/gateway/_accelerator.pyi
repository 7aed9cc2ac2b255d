from hubbub.gateway.outlets import Outlet as Outlet
from hubbub.gateway.outlets import flush as flush

VERSION: int
