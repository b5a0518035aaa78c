# terraform plan -var-file=example.tfvars
project             = "my-project"
region              = "europe-west3"
authorized_networks = { office = "203.0.113.0/24" }

postgresql = {}
redis      = {}
kafka      = {}
