# The servers; each may be left out: PostgreSQL (Cloud SQL), Kafka (Managed Service for Apache Kafka), Redis
# (Memorystore). They have private addresses only. docs/deployment.md says when Terraform deletes them.

locals {
  peered = var.postgresql != null || var.redis != null
}

resource "google_compute_global_address" "servers" {
  count = local.peered ? 1 : 0

  name          = "${var.name}-servers"
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
  network       = google_compute_network.this.id
}

resource "google_service_networking_connection" "servers" {
  count = local.peered ? 1 : 0

  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.servers[0].name]
}

# --- PostgreSQL. Its user is made by hand (docs/deployment.md), so that no password is in the state.

resource "google_kms_crypto_key_iam_member" "sql" {
  count = var.postgresql == null ? 0 : 1

  crypto_key_id = google_kms_crypto_key.this.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-cloud-sql.iam.gserviceaccount.com"
}

resource "google_sql_database_instance" "this" {
  # checkov:skip=CKV_GCP_6:ssl_mode refuses connections without TLS
  # checkov:skip=CKV_GCP_55:log_min_messages is ERROR by default
  count = var.postgresql == null ? 0 : 1

  name                = var.name
  region              = var.region
  database_version    = var.postgresql.version
  encryption_key_name = google_kms_crypto_key.this.id
  deletion_protection = true

  settings {
    tier      = var.postgresql.tier
    edition   = "ENTERPRISE"
    disk_type = "PD_SSD"
    disk_size = var.postgresql.storage_gb
    # A standby in another zone, written synchronously: committed data survives the loss of a zone.
    availability_type           = "REGIONAL"
    disk_autoresize             = true
    deletion_protection_enabled = true

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.this.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = 14
      }
    }

    insights_config {
      query_insights_enabled = true
    }

    dynamic "database_flags" {
      for_each = {
        "cloudsql.enable_pgaudit"    = "on"
        "log_checkpoints"            = "on"
        "log_connections"            = "on"
        "log_disconnections"         = "on"
        "log_duration"               = "on"
        "log_hostname"               = "on"
        "log_lock_waits"             = "on"
        "log_min_error_statement"    = "error"
        "log_min_duration_statement" = "-1"
        "log_statement"              = "ddl"
        "log_temp_files"             = "0"
      }

      content {
        name  = database_flags.key
        value = database_flags.value
      }
    }
  }

  depends_on = [
    google_kms_crypto_key_iam_member.sql,
    google_service_networking_connection.servers,
  ]
}

resource "google_sql_database" "orders" {
  count = var.postgresql == null ? 0 : 1

  name     = "orders"
  instance = google_sql_database_instance.this[0].name
}

# --- Kafka. Clients log in by SASL/PLAIN over TLS with a key of this account, which is made by hand.

resource "google_kms_crypto_key_iam_member" "kafka" {
  count = var.kafka == null ? 0 : 1

  crypto_key_id = google_kms_crypto_key.this.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-managedkafka.iam.gserviceaccount.com"
}

resource "google_managed_kafka_cluster" "this" {
  count = var.kafka == null ? 0 : 1

  cluster_id = var.name
  location   = var.region

  capacity_config {
    vcpu_count   = var.kafka.vcpu_count
    memory_bytes = var.kafka.memory_gib * 1024 * 1024 * 1024
  }

  gcp_config {
    kms_key = google_kms_crypto_key.this.id

    access_config {
      network_configs {
        subnet = google_compute_subnetwork.nodes.id
      }
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.kafka]
}

resource "google_service_account" "kafka" {
  count = var.kafka == null ? 0 : 1

  account_id   = "${var.name}-kafka"
  display_name = "Processes of ${var.name}, at Kafka"
}

# A project has one role for all of its clusters; Kafka's ACLs say which topics.
resource "google_project_iam_member" "kafka" {
  count = var.kafka == null ? 0 : 1

  project = var.project
  role    = "roles/managedkafka.client"
  member  = google_service_account.kafka[0].member
}

# --- Redis: its data may be lost, but it must refuse writes when it is full (check_servers: redis-evicts)

resource "google_kms_crypto_key_iam_member" "redis" {
  count = var.redis == null ? 0 : 1

  crypto_key_id = google_kms_crypto_key.this.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:service-${data.google_project.this.number}@cloud-redis.iam.gserviceaccount.com"
}

resource "google_redis_instance" "this" {
  count = var.redis == null ? 0 : 1

  name               = var.name
  region             = var.region
  tier               = "STANDARD_HA"
  redis_version      = var.redis.version
  memory_size_gb     = var.redis.memory_gb
  authorized_network = google_compute_network.this.id
  connect_mode       = "PRIVATE_SERVICE_ACCESS"

  auth_enabled            = true
  transit_encryption_mode = "SERVER_AUTHENTICATION"
  customer_managed_key    = google_kms_crypto_key.this.id

  redis_configs = {
    maxmemory-policy = "noeviction"
  }

  persistence_config {
    persistence_mode    = "RDB"
    rdb_snapshot_period = "ONE_HOUR"
  }

  depends_on = [
    google_kms_crypto_key_iam_member.redis,
    google_service_networking_connection.servers,
  ]
}
