output "cluster_name" {
  description = "gcloud container clusters get-credentials …"
  value       = google_container_cluster.this.name
}

output "cluster_endpoint" {
  description = "Address of the cluster's API."
  value       = google_container_cluster.this.endpoint
}

output "network_id" {
  description = "The network."
  value       = google_compute_network.this.id
}

output "image_repository" {
  description = "Where the image is pushed to; image.repository of the chart with the image's name behind it."
  value       = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "node_service_account" {
  description = "Account of the nodes."
  value       = google_service_account.nodes.email
}

output "postgresql_address" {
  description = "Host, for DATABASE_URL; null where there is none."
  value       = one(google_sql_database_instance.this[*].private_ip_address)
}

output "kafka_bootstrap_servers" {
  description = "KAFKA_BOOTSTRAP_SERVERS; with KAFKA_SECURITY_PROTOCOL=SASL_SSL, KAFKA_SASL_MECHANISM=PLAIN."
  value       = one([for each in google_managed_kafka_cluster.this : "bootstrap.${each.cluster_id}.${each.location}.managedkafka.${var.project}.cloud.goog:9092"])
}

output "kafka_username" {
  description = "KAFKA_SASL_USERNAME: an account whose key, in base64, is the password."
  value       = one(google_service_account.kafka[*].email)
}

output "redis_address" {
  description = "Host and port, for REDIS_URL=rediss://:password@…/0."
  value       = one([for each in google_redis_instance.this : "${each.host}:${each.port}"])
}

output "redis_authorities" {
  description = "PEM of who signed the certificate, for ssl_ca_certs."
  value       = flatten([for each in google_redis_instance.this : each.server_ca_certs[*].cert])
}
