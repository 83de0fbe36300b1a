"""Write the configuration that nginx would read for every method: FOLDER/METHOD/nginx.conf."""

import shutil
import sys
from pathlib import Path

from nginx_llm_lab.nginxconf import methods

NGINX = Path(__file__).resolve().parents[1] / "nginx"
BACKENDS = ("backend-1", "backend-2", "backend-3")


def main(folder: Path) -> None:
    """One folder a method, with its includes beside it; what the image adds is left out."""
    for name in methods.methods():
        place = folder / name
        (place / "active").mkdir(parents=True)
        for file in NGINX.glob("*.conf"):
            shutil.copy(file, place)
        text = methods.render(methods.Choice(name, BACKENDS))
        (place / "active/upstream.conf").write_text(text)
        conf = place / "nginx.conf"
        lines = conf.read_text().splitlines()
        conf.write_text(
            "\n".join(line for line in lines if "include /etc/nginx" not in line) + "\n"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
