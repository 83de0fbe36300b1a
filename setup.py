"""Put what the lab runs into the package: compose.yaml, nginx/, the images' folders.

They are copied at build time, so the checkout's own files stay the one source of truth. Everything
else about the package stands in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RUN_BY_DOCKER = ("compose.yaml", "nginx", "backends", "lab/traffic/image", "lab/stack/metrics")
# nginx/active is what `lab use` wrote here; an installed lab writes its own elsewhere
LEFT_OUT = shutil.ignore_patterns("__pycache__", "active")


class BuildWithProject(build_py):
    """Lay those files under nginx_llm_lab/project, where lab/paths.py looks for them."""

    def run(self) -> None:
        """Build the modules, then add the files."""
        super().run()
        if self.editable_mode:
            return  # the checkout itself is there
        target = Path(self.build_lib) / "nginx_llm_lab/project"
        shutil.rmtree(target, ignore_errors=True)
        for name in RUN_BY_DOCKER:
            source = Path(name)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=LEFT_OUT)
            else:
                shutil.copy2(source, target / name)
        # Docker mounts the folder with the method over this one
        (target / "nginx/active").mkdir()
        (target / "nginx/active/.gitkeep").touch()


setup(cmdclass={"build_py": BuildWithProject})
