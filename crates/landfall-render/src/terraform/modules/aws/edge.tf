variable "name" {
  type        = string
  description = "What the names of everything at the edge begin with."
}

variable "hosts" {
  type        = list(string)
  description = "The names under which users reach the platform."
}

variable "zone" {
  type        = string
  description = "The DNS zone that the names are in."
}

variable "origin" {
  type        = string
  description = "The name of the load balancer of the cluster's ingress, for the content delivery network; empty until it is there."
  default     = ""
}

variable "network_id" {
  type        = string
  description = "The network."
}

variable "public_subnet_ids" {
  type        = list(string)
  description = "The subnets of the load balancer that stands here where there is no content delivery network."
}

variable "node_security_group_id" {
  type        = string
  description = "The security group of the nodes."
}

variable "autoscaling_groups" {
  type        = map(string)
  description = "The groups of the nodes, which the load balancer sends requests to."
}

variable "node_port" {
  type        = number
  description = "The port of every node on which the cluster's ingress takes HTTPS."
  default     = 30443
}

variable "cdn" {
  type        = bool
  description = "Whether a content delivery network stands in front."
}

variable "waf" {
  type        = bool
  description = "Whether a web application firewall looks at requests."
}

variable "rate_limit" {
  type        = number
  description = "How many requests one address may make in five minutes."
  default     = 2000
}

locals {
  # CloudFront takes its firewall and its certificate from one region, whatever the origin's is.
  region = var.cdn ? "us-east-1" : null
  # A firewall binds to a distribution or to a load balancer of HTTP, and to none that a Service asks for.
  balancers = var.cdn ? 0 : 1
}

data "aws_route53_zone" "this" {
  name = var.zone
}

resource "aws_acm_certificate" "this" {
  region                    = local.region
  domain_name               = var.hosts[0]
  subject_alternative_names = slice(var.hosts, 1, length(var.hosts))
  validation_method         = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "validation" {
  for_each = { for option in aws_acm_certificate.this.domain_validation_options : option.domain_name => option }
  zone_id  = data.aws_route53_zone.this.zone_id
  name     = each.value.resource_record_name
  type     = each.value.resource_record_type
  records  = [each.value.resource_record_value]
  ttl      = 300
}

resource "aws_acm_certificate_validation" "this" {
  region                  = local.region
  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [for record in aws_route53_record.validation : record.fqdn]
}

resource "aws_wafv2_web_acl" "this" {
  # checkov:skip=CKV2_AWS_31: Sampled requests and metrics are kept; whole requests carry personal data.
  count       = var.waf ? 1 : 0
  region      = local.region
  name        = var.name
  description = "What may reach the platform"
  scope       = var.cdn ? "CLOUDFRONT" : "REGIONAL"

  default_action {
    allow {}
  }

  dynamic "rule" {
    for_each = ["AWSManagedRulesCommonRuleSet", "AWSManagedRulesKnownBadInputsRuleSet", "AWSManagedRulesSQLiRuleSet"]

    content {
      name     = rule.value
      priority = rule.key

      override_action {
        none {}
      }

      statement {
        managed_rule_group_statement {
          vendor_name = "AWS"
          name        = rule.value
        }
      }

      visibility_config {
        metric_name                = rule.value
        cloudwatch_metrics_enabled = true
        sampled_requests_enabled   = true
      }
    }
  }

  rule {
    name     = "rate"
    priority = 10

    action {
      block {}
    }

    statement {
      rate_based_statement {
        limit              = var.rate_limit
        aggregate_key_type = "IP"
      }
    }

    visibility_config {
      metric_name                = "rate"
      cloudwatch_metrics_enabled = true
      sampled_requests_enabled   = true
    }
  }

  visibility_config {
    metric_name                = var.name
    cloudwatch_metrics_enabled = true
    sampled_requests_enabled   = true
  }
}

resource "aws_cloudfront_distribution" "this" {
  # checkov:skip=CKV_AWS_86: Accesses are logged by the ingress, with the retention that the file declares.
  # checkov:skip=CKV_AWS_305: The origin serves `/` itself.
  # checkov:skip=CKV_AWS_310: A second origin comes with the standby region, by DNS.
  # checkov:skip=CKV_AWS_374: The file restricts no countries of users.
  # checkov:skip=CKV2_AWS_32: The services set their own headers.
  # checkov:skip=CKV2_AWS_47: The firewall is there when the file declares it.
  # checkov:skip=CKV_AWS_68: The firewall is there when the file declares it.
  count           = var.cdn && var.origin != "" ? 1 : 0
  enabled         = true
  is_ipv6_enabled = true
  http_version    = "http2and3"
  aliases         = var.hosts
  web_acl_id      = var.waf ? aws_wafv2_web_acl.this[0].arn : null

  origin {
    origin_id   = "ingress"
    domain_name = var.origin

    custom_origin_config {
      http_port              = 80
      https_port             = 443
      origin_protocol_policy = "https-only"
      origin_ssl_protocols   = ["TLSv1.2"]
    }
  }

  default_cache_behavior {
    target_origin_id       = "ingress"
    viewer_protocol_policy = "redirect-to-https"
    allowed_methods        = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"]
    cached_methods         = ["GET", "HEAD"]
    compress               = true

    # The managed policies: the origin decides by its headers what is kept, and gets whatever the user sent.
    cache_policy_id          = "83da9c7e-98b4-4e11-a168-04f0df8e2c65"
    origin_request_policy_id = "216adef6-5c7f-47e4-b989-5492eafa07d3"
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    acm_certificate_arn      = aws_acm_certificate_validation.this.certificate_arn
    minimum_protocol_version = "TLSv1.2_2021"
    ssl_support_method       = "sni-only"
  }
}

resource "aws_security_group" "this" {
  count       = local.balancers
  name        = "${var.name}-edge"
  description = "What the load balancer of ${var.name} takes and reaches"
  vpc_id      = var.network_id
}

resource "aws_vpc_security_group_ingress_rule" "users" {
  # checkov:skip=CKV_AWS_260: Port 80 answers with nothing but the way to port 443.
  for_each          = var.cdn ? [] : toset(["80", "443"])
  security_group_id = aws_security_group.this[0].id
  description       = "Users"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
}

resource "aws_vpc_security_group_egress_rule" "nodes" {
  count                        = local.balancers
  security_group_id            = aws_security_group.this[0].id
  referenced_security_group_id = var.node_security_group_id
  description                  = "The ingress"
  ip_protocol                  = "tcp"
  from_port                    = var.node_port
  to_port                      = var.node_port
}

resource "aws_vpc_security_group_ingress_rule" "nodes" {
  count                        = local.balancers
  security_group_id            = var.node_security_group_id
  referenced_security_group_id = aws_security_group.this[0].id
  description                  = "The load balancer, to the ingress"
  ip_protocol                  = "tcp"
  from_port                    = var.node_port
  to_port                      = var.node_port
}

resource "aws_lb" "this" {
  # checkov:skip=CKV_AWS_91: Accesses are logged by the ingress, with the retention that the file declares.
  # checkov:skip=CKV2_AWS_76: Log4j's hole is among the known bad inputs, in the list above.
  count                      = local.balancers
  name                       = substr(var.name, 0, 32)
  load_balancer_type         = "application"
  internal                   = false
  subnets                    = var.public_subnet_ids
  security_groups            = [aws_security_group.this[0].id]
  drop_invalid_header_fields = true
  enable_deletion_protection = true
}

# What the ingress says of a host that it does not know is a sign of life, too.
resource "aws_lb_target_group" "this" {
  count       = local.balancers
  name        = substr(var.name, 0, 32)
  vpc_id      = var.network_id
  target_type = "instance"
  protocol    = "HTTPS"
  port        = var.node_port

  health_check {
    protocol = "HTTPS"
    path     = "/"
    matcher  = "200-499"
  }
}

resource "aws_autoscaling_attachment" "this" {
  # checkov:skip=CKV2_AWS_15: A node is well or not by what the cluster says, and not by its ingress.
  for_each               = var.cdn ? {} : var.autoscaling_groups
  autoscaling_group_name = each.value
  lb_target_group_arn    = aws_lb_target_group.this[0].arn
}

resource "aws_lb_listener" "http" {
  count             = local.balancers
  load_balancer_arn = aws_lb.this[0].arn
  protocol          = "HTTP"
  port              = 80

  default_action {
    type = "redirect"

    redirect {
      protocol    = "HTTPS"
      port        = "443"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_lb_listener" "https" {
  count             = local.balancers
  load_balancer_arn = aws_lb.this[0].arn
  protocol          = "HTTPS"
  port              = 443
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = aws_acm_certificate_validation.this.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this[0].arn
  }
}

resource "aws_wafv2_web_acl_association" "this" {
  count        = var.waf ? local.balancers : 0
  resource_arn = aws_lb.this[0].arn
  web_acl_arn  = aws_wafv2_web_acl.this[0].arn
}

resource "aws_route53_record" "host" {
  for_each = var.cdn && var.origin == "" ? [] : toset(var.hosts)
  zone_id  = data.aws_route53_zone.this.zone_id
  name     = each.key
  type     = "A"

  alias {
    name                   = var.cdn ? aws_cloudfront_distribution.this[0].domain_name : aws_lb.this[0].dns_name
    zone_id                = var.cdn ? aws_cloudfront_distribution.this[0].hosted_zone_id : aws_lb.this[0].zone_id
    evaluate_target_health = !var.cdn
  }
}

output "certificate_arn" {
  description = "The certificate of the names."
  value       = aws_acm_certificate_validation.this.certificate_arn
}

output "address" {
  description = "The name of what users reach; null until it is there."
  value       = one(concat(aws_cloudfront_distribution.this[*].domain_name, aws_lb.this[*].dns_name))
}
