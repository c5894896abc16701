"""The devices: what touches the world. Files, documents, databases, sandboxed processes, a page
of a browser, a person, signals and times.

Each device declares its functions with types and effects (`core.signature`) and executes one call
at a time. Knows nothing of scheduling, hazards or journals.
"""

from edvac.core.signature import Catalogue
from edvac.device import doc, files, human, llm, process, sql, waiting
from edvac.device.browser import signatures as browser
from edvac.device.browser.device import Browser
from edvac.device.browser.origins import Grants
from edvac.device.doc import Documents
from edvac.device.files import Files
from edvac.device.human import Human
from edvac.device.origin import Origin
from edvac.device.port import AskPerson, Call, Device, Held, NewFile, Reply, RunFiles, Version
from edvac.device.process import Processes
from edvac.device.roots import Roots
from edvac.device.sql import Databases
from edvac.device.tools import Tools
from edvac.device.waiting import Events

CATALOGUE = Catalogue.of(
    files.SIGNATURES
    + doc.SIGNATURES
    + sql.SIGNATURES
    + llm.SIGNATURES
    + process.SIGNATURES
    + human.SIGNATURES
    + browser.SIGNATURES
    + waiting.SIGNATURES
)

__all__ = [
    "CATALOGUE",
    "AskPerson",
    "Browser",
    "Call",
    "Databases",
    "Device",
    "Documents",
    "Events",
    "Files",
    "Grants",
    "Held",
    "Human",
    "NewFile",
    "Origin",
    "Processes",
    "Reply",
    "Roots",
    "RunFiles",
    "Tools",
    "Version",
]
