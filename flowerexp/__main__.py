"""python -m flowerexp"""

from flowerexp.cli.main import main

main()
