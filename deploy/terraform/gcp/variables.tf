variable "name" {
  description = "Name of the cluster, and the beginning of every other name."
  type        = string
  default     = "event-processor"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name))
    error_message = "3 to 22 small letters, digits and hyphens: a service account has 30 with what comes behind it."
  }
}

variable "project" {
  description = "Id of the project. Its APIs are switched on: compute, container, cloudkms, artifactregistry; servicenetworking and sqladmin, managedkafka, redis for the servers."
  type        = string
}

variable "region" {
  description = "Region of everything; the cluster is regional, in three zones."
  type        = string
}

variable "subnet_cidr" {
  description = "Addresses of the nodes."
  type        = string
  default     = "10.50.0.0/20"

  validation {
    condition     = can(cidrhost(var.subnet_cidr, 0))
    error_message = "A network."
  }
}

variable "pods_cidr" {
  description = "Addresses of the pods."
  type        = string
  default     = "10.52.0.0/16"

  validation {
    condition     = can(cidrhost(var.pods_cidr, 0))
    error_message = "A network."
  }
}

variable "services_cidr" {
  description = "Addresses of the Services."
  type        = string
  default     = "10.51.0.0/20"

  validation {
    condition     = can(cidrhost(var.services_cidr, 0))
    error_message = "A network."
  }
}

variable "control_plane_cidr" {
  description = "A /28 for the control plane."
  type        = string
  default     = "10.51.240.0/28"

  validation {
    condition     = can(cidrhost(var.control_plane_cidr, 0)) && endswith(var.control_plane_cidr, "/28")
    error_message = "A network of the size /28."
  }
}

variable "authorized_networks" {
  description = "Name -> network from which the cluster's API can be reached; none: only from inside the network."
  type        = map(string)
  default     = {}

  validation {
    condition     = !contains(values(var.authorized_networks), "0.0.0.0/0")
    error_message = "Not the whole Internet."
  }
}

variable "release_channel" {
  description = "How early new versions of Kubernetes come."
  type        = string
  default     = "REGULAR"

  validation {
    condition     = contains(["REGULAR", "STABLE"], var.release_channel)
    error_message = "REGULAR or STABLE."
  }
}

variable "admin_group" {
  description = "Google group of the domain, gke-security-groups@…, by whose members RBAC may name groups; empty: none."
  type        = string
  default     = ""
}

variable "machine_type" {
  description = "Machines of the node pool."
  type        = string
  default     = "n2d-standard-2"
}

variable "nodes_per_zone" {
  description = "Machines in each zone: at least and at most."
  type = object({
    min = number
    max = number
  })
  default = { min = 1, max = 3 }
}

variable "image_repository" {
  description = "Name of the repository in Artifact Registry that holds the image, which is made."
  type        = string
  default     = "event-processor"
}

variable "postgresql" {
  description = "PostgreSQL of Cloud SQL; null: none."
  type = object({
    version    = optional(string, "POSTGRES_17")
    tier       = optional(string, "db-custom-2-8192")
    storage_gb = optional(number, 100)
  })
  default = null
}

variable "kafka" {
  description = "Managed Service for Apache Kafka, at least 3 processors and 3 GiB; null: none."
  type = object({
    vcpu_count = optional(number, 3)
    memory_gib = optional(number, 6)
  })
  default = null
}

variable "redis" {
  description = "Redis of Memorystore, with a replica in another zone; null: none."
  type = object({
    version   = optional(string, "REDIS_7_2")
    memory_gb = optional(number, 2)
  })
  default = null
}
