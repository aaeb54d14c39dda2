"""Parts of one's own for flowerexp: one of each kind, named by the options in ../conf."""
