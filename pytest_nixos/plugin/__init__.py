"""The pytest plugin: options, collection, fixtures, and the run from a host ref to its findings.
Only this room imports pytest.
"""

from pytest_nixos.plugin.plain_import import import_plainly

# Before any other module of ours is imported: this package comes first, whoever imports the plugin.
import_plainly()
