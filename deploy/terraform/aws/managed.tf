# The servers, each of which may be left out: PostgreSQL (RDS), Kafka (MSK), Redis (ElastiCache). Nobody but
# pods of the cluster reaches them. docs/deployment.md says what becomes of their addresses.

locals {
  servers = merge(
    var.postgresql == null ? {} : { postgresql = [5432] },
    # SASL/SCRAM over TLS
    var.kafka == null ? {} : { kafka = [9096] },
    var.redis == null ? {} : { redis = [6379] },
  )
  private_subnets = [for zone in var.zones : aws_subnet.private[zone].id]
}

resource "aws_security_group" "server" {
  for_each = local.servers

  name        = "${var.name}-${each.key}"
  description = "${each.key}, for pods of the cluster"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_security_group_ingress_rule" "server" {
  for_each = { for each in flatten([
    for name, ports in local.servers : [for port in ports : { name = name, port = port }]
  ]) : "${each.name}-${each.port}" => each }

  description                  = "From pods and nodes"
  security_group_id            = aws_security_group.server[each.value.name].id
  referenced_security_group_id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
}

# --- PostgreSQL. RDS makes the password of its first user and keeps it in Secrets Manager: it is in no state.

resource "aws_db_subnet_group" "this" {
  count = var.postgresql == null ? 0 : 1

  name       = var.name
  subnet_ids = local.private_subnets
}

resource "aws_db_parameter_group" "this" {
  count = var.postgresql == null ? 0 : 1

  name_prefix = "${var.name}-"
  family      = "postgres${split(".", var.postgresql.version)[0]}"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  parameter {
    name  = "log_lock_waits"
    value = "1"
  }

  parameter {
    name  = "log_statement"
    value = "ddl"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }

  lifecycle {
    create_before_destroy = true
  }
}

data "aws_iam_policy_document" "monitoring_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["monitoring.rds.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_iam_role" "monitoring" {
  count = var.postgresql == null ? 0 : 1

  name               = "${var.name}-rds-monitoring"
  assume_role_policy = data.aws_iam_policy_document.monitoring_assume.json
}

resource "aws_iam_role_policy_attachment" "monitoring" {
  count = var.postgresql == null ? 0 : 1

  role       = aws_iam_role.monitoring[0].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}

resource "aws_db_instance" "this" {
  # checkov:skip=CKV_AWS_161:processes log in by the password in DATABASE_URL
  count = var.postgresql == null ? 0 : 1

  identifier     = var.name
  engine         = "postgres"
  engine_version = var.postgresql.version
  instance_class = var.postgresql.instance_class
  db_name        = "orders"

  username                      = "postgres"
  manage_master_user_password   = true
  master_user_secret_kms_key_id = aws_kms_key.this.arn

  storage_type          = "gp3"
  allocated_storage     = var.postgresql.storage_gb
  max_allocated_storage = var.postgresql.max_storage_gb
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.this.arn

  # A standby in another zone, written synchronously: what was committed survives the loss of one.
  multi_az               = true
  db_subnet_group_name   = aws_db_subnet_group.this[0].name
  parameter_group_name   = aws_db_parameter_group.this[0].name
  vpc_security_group_ids = [aws_security_group.server["postgresql"].id]
  publicly_accessible    = false

  backup_retention_period   = 14
  copy_tags_to_snapshot     = true
  deletion_protection       = true
  skip_final_snapshot       = false
  final_snapshot_identifier = "${var.name}-last"

  auto_minor_version_upgrade      = true
  performance_insights_enabled    = true
  performance_insights_kms_key_id = aws_kms_key.this.arn
  monitoring_interval             = 60
  monitoring_role_arn             = aws_iam_role.monitoring[0].arn
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]
}

# --- Kafka, as manage.py check_servers wants it

resource "aws_cloudwatch_log_group" "kafka" {
  count = var.kafka == null ? 0 : 1

  name              = "/${var.name}/kafka"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.this.arn
}

resource "aws_msk_configuration" "this" {
  count = var.kafka == null ? 0 : 1

  name           = var.name
  kafka_versions = [var.kafka.version]

  server_properties = <<-EOT
    auto.create.topics.enable=false
    default.replication.factor=3
    min.insync.replicas=2
    unclean.leader.election.enable=false
  EOT
}

resource "aws_msk_cluster" "this" {
  count = var.kafka == null ? 0 : 1

  cluster_name           = var.name
  kafka_version          = var.kafka.version
  number_of_broker_nodes = length(var.zones)
  enhanced_monitoring    = "PER_BROKER"

  broker_node_group_info {
    instance_type   = var.kafka.instance_type
    client_subnets  = local.private_subnets
    security_groups = [aws_security_group.server["kafka"].id]

    storage_info {
      ebs_storage_info {
        volume_size = var.kafka.storage_gb
      }
    }
  }

  client_authentication {
    unauthenticated = false

    sasl {
      scram = true
    }
  }

  configuration_info {
    arn      = aws_msk_configuration.this[0].arn
    revision = aws_msk_configuration.this[0].latest_revision
  }

  encryption_info {
    encryption_at_rest_kms_key_arn = aws_kms_key.this.arn

    encryption_in_transit {
      client_broker = "TLS"
      in_cluster    = true
    }
  }

  logging_info {
    broker_logs {
      cloudwatch_logs {
        enabled   = true
        log_group = aws_cloudwatch_log_group.kafka[0].name
      }
    }
  }
}

resource "aws_msk_scram_secret_association" "this" {
  count = var.kafka == null ? 0 : 1

  cluster_arn     = aws_msk_cluster.this[0].arn
  secret_arn_list = [var.kafka.scram_secret_arn]
}

# --- Redis: it carries and may forget, but must refuse when it is full (check_servers: redis-evicts)

resource "aws_elasticache_subnet_group" "this" {
  count = var.redis == null ? 0 : 1

  name       = var.name
  subnet_ids = local.private_subnets
}

resource "aws_elasticache_parameter_group" "this" {
  count = var.redis == null ? 0 : 1

  name   = var.name
  family = "redis7"

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

resource "aws_elasticache_user" "default" {
  count = var.redis == null ? 0 : 1

  user_id       = "${var.name}-default"
  user_name     = "default"
  engine        = "redis"
  access_string = "off ~* -@all"

  authentication_mode {
    type = "no-password-required"
  }
}

resource "aws_elasticache_user" "processes" {
  count = var.redis == null ? 0 : 1

  user_id       = "${var.name}-processes"
  user_name     = "event-processor"
  engine        = "redis"
  access_string = "on ~* &* +@all -@admin -@dangerous +info"

  authentication_mode {
    type      = "password"
    passwords = [var.redis_password]
  }
}

resource "aws_elasticache_user_group" "this" {
  count = var.redis == null ? 0 : 1

  user_group_id = var.name
  engine        = "redis"
  user_ids      = [aws_elasticache_user.default[0].user_id, aws_elasticache_user.processes[0].user_id]
}

resource "aws_elasticache_replication_group" "this" {
  # checkov:skip=CKV_AWS_31:users of a user group log in, each with its own password
  count = var.redis == null ? 0 : 1

  replication_group_id = var.name
  description          = "Carries tasks of ${var.name}"
  engine               = "redis"
  engine_version       = var.redis.version
  node_type            = var.redis.node_type
  num_cache_clusters   = 2
  parameter_group_name = aws_elasticache_parameter_group.this[0].name

  automatic_failover_enabled = true
  multi_az_enabled           = true

  subnet_group_name  = aws_elasticache_subnet_group.this[0].name
  security_group_ids = [aws_security_group.server["redis"].id]
  user_group_ids     = [aws_elasticache_user_group.this[0].user_group_id]

  at_rest_encryption_enabled = true
  kms_key_id                 = aws_kms_key.this.arn
  transit_encryption_enabled = true
  snapshot_retention_limit   = 1
  auto_minor_version_upgrade = true

  lifecycle {
    precondition {
      condition     = var.redis_password != null
      error_message = "redis_password is not given."
    }
  }
}
