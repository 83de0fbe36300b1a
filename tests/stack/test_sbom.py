"""The package list of an image, as scanners read it."""

from nginx_llm_lab.stack.sbom import Package, document, read

LISTING = """\
zlib1g\t1:1.3.1+b1\tamd64\tinstalled
gone\t1\tall\tconfig-files
bash\t5.2\tamd64\tinstalled
"""


def test_only_what_is_installed_is_listed() -> None:
    """A package that was removed and left its configuration is not there."""
    assert read(LISTING) == (
        Package("bash", "5.2", "amd64"),
        Package("zlib1g", "1:1.3.1+b1", "amd64"),
    )


def test_a_document_names_the_image_and_each_package() -> None:
    """CycloneDX, with a package URL in which an epoch is escaped."""
    bill = document("lab/backend:0.1.0", (*read(LISTING), Package("nginx", "1.31.3")))

    assert bill["metadata"]["component"]["name"] == "lab/backend"
    assert [component["purl"] for component in bill["components"]] == [
        "pkg:deb/debian/bash@5.2?arch=amd64",
        "pkg:deb/debian/zlib1g@1%3A1.3.1%2Bb1?arch=amd64",
        "pkg:generic/nginx@1.31.3",
    ]
