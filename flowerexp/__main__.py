"""python -m flowerexp"""

from flowerexp.cli import main

main()
