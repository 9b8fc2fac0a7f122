"""Search spaces, and the genotypes that are points of one."""
