output "cluster_name" {
  description = "aws eks update-kubeconfig --name …"
  value       = aws_eks_cluster.this.name
}

output "cluster_endpoint" {
  description = "Address of the cluster's API."
  value       = aws_eks_cluster.this.endpoint
}

output "oidc_provider_arn" {
  description = "For roles that service accounts take on."
  value       = aws_iam_openid_connect_provider.cluster.arn
}

output "vpc_id" {
  description = "The network."
  value       = aws_vpc.this.id
}

output "private_subnet_ids" {
  description = "Where nodes and servers are."
  value       = local.private_subnets
}

output "kms_key_arn" {
  description = "The key of all that is kept."
  value       = aws_kms_key.this.arn
}

output "postgresql_address" {
  description = "Host and port, for DATABASE_URL; null where there is none."
  value       = one(aws_db_instance.this[*].endpoint)
}

output "postgresql_secret_arn" {
  description = "Secret with the first user's name and password."
  value       = one(aws_db_instance.this[*].master_user_secret[0].secret_arn)
}

output "kafka_bootstrap_servers" {
  description = "KAFKA_BOOTSTRAP_SERVERS; with KAFKA_SECURITY_PROTOCOL=SASL_SSL, KAFKA_SASL_MECHANISM=SCRAM-SHA-512."
  value       = one(aws_msk_cluster.this[*].bootstrap_brokers_sasl_scram)
}

output "redis_address" {
  description = "Host of the primary, for REDIS_URL=rediss://event-processor:password@…:6379/0."
  value       = one(aws_elasticache_replication_group.this[*].primary_endpoint_address)
}
