variable "name" {
  description = "Name of the cluster, and the beginning of every other name."
  type        = string
  default     = "event-processor"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "3 to 24 small letters, digits and hyphens."
  }
}

variable "region" {
  description = "Region of everything."
  type        = string
}

variable "vpc_cidr" {
  description = "Addresses of the network; a /16 is cut into /20 for nodes and servers."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && endswith(var.vpc_cidr, "/16")
    error_message = "A network of the size /16."
  }
}

variable "zones" {
  description = "Availability zones, three: a broker and a node in each."
  type        = list(string)

  validation {
    condition     = length(distinct(var.zones)) == 3
    error_message = "Three different zones."
  }
}

variable "one_nat_gateway" {
  description = "One way out for all zones instead of one for each: cheaper, and lost with its zone."
  type        = bool
  default     = false
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes."
  type        = string
  default     = "1.33"
}

variable "admin_principal_arns" {
  description = "Roles or users that administer the cluster. Whoever runs Terraform is not one by itself."
  type        = list(string)

  validation {
    condition     = length(var.admin_principal_arns) > 0
    error_message = "Without one nobody could reach the cluster."
  }
}

variable "public_access_cidrs" {
  description = "Networks from which the cluster's API can be reached; empty: from inside the VPC alone."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.public_access_cidrs, "0.0.0.0/0")
    error_message = "Not the whole Internet."
  }
}

variable "node_instance_types" {
  description = "Machines of the node group."
  type        = list(string)
  default     = ["m7i.large"]
}

variable "node_count" {
  description = "Machines: at least, at first and at most."
  type = object({
    min     = number
    desired = number
    max     = number
  })
  default = { min = 3, desired = 3, max = 9 }
}

variable "log_retention_days" {
  description = "How long logs of the cluster, the network and the servers are kept."
  type        = number
  default     = 365
}

variable "postgresql" {
  description = "PostgreSQL of RDS; null: none."
  type = object({
    version        = optional(string, "17")
    instance_class = optional(string, "db.m7g.large")
    storage_gb     = optional(number, 100)
    max_storage_gb = optional(number, 1000)
  })
  default = null
}

variable "kafka" {
  description = "Kafka of MSK, one broker a zone; null: none. The secret holds the user and password of SASL/SCRAM; its name begins with AmazonMSK_ and it is encrypted with a key of yours."
  type = object({
    version          = optional(string, "3.9.x")
    instance_type    = optional(string, "kafka.m7g.large")
    storage_gb       = optional(number, 200)
    scram_secret_arn = string
  })
  default = null
}

variable "redis" {
  description = "Redis of ElastiCache, with a replica in another zone; null: none."
  type = object({
    version   = optional(string, "7.1")
    node_type = optional(string, "cache.m7g.large")
  })
  default = null
}

variable "redis_password" {
  description = "Password of the user event-processor, 16 to 128 characters; needed where redis is given. It stands in the state."
  type        = string
  default     = null
  sensitive   = true
}
