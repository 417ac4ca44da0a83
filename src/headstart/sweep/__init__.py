"""Many runs launched together: which jobs a sweep has, and running them."""
