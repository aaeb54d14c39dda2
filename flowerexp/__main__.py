"""python -m flowerexp"""

from flowerexp.cli.cli import main

main()
