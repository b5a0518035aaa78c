terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.0"
    }
  }

  # Partly given at `terraform init`: -backend-config=bucket=… . The bucket has versions and uniform access, and
  # is not public: the state holds the password of Redis.
  backend "gcs" {
    prefix = "event-processor"
  }
}

provider "google" {
  project = var.project
  region  = var.region

  default_labels = {
    project    = var.name
    managed-by = "terraform"
  }
}
