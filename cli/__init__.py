"""The command line of gdas-tf."""
