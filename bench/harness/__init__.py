"""What `bench/run` is made of: Debian's proxies, processes, variants, measurements, the report."""
