name = "web1"
