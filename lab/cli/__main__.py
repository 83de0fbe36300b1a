"""`python -m nginx_llm_lab.cli`, the same as `lab`."""

from . import main

main()
