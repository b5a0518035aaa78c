# terraform plan -var-file=example.tfvars, with TF_VAR_redis_password in the environment
region               = "eu-central-1"
zones                = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
admin_principal_arns = ["arn:aws:iam::111122223333:role/administrators"]

postgresql = {}
redis      = {}
kafka = {
  scram_secret_arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:AmazonMSK_event-processor-AbCdEf"
}
